"""The folder that a run writes its results into: its own, so that no file in it is of another run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mst_pretrain.data.files import first_of, visible
from mst_pretrain.runtime.errors import UserError
from mst_pretrain.runtime.work_dir import writable_folder


def fresh_folder(out: str | Path, inputs: Sequence[str | Path] = ()) -> None:
    """Make the folder of ``--out``, which must be this run's own.

    Args:
        out: A new or empty folder.
        inputs: Files and folders that are read; ``out`` must not be inside such a folder, or the next run would read
            what this one writes.

    Raises:
        UserError: It is inside an input, holds files, or cannot be written.
    """
    folder = Path(out).resolve()
    for given in inputs:
        if folder.is_relative_to(Path(given).resolve()):
            raise UserError(
                f"--out {out} lies inside the images, {given}: the next run would take its pictures for images. Give a "
                "folder elsewhere."
            )
    writable_folder(out, "--out")
    held = sorted(visible(path.name for path in folder.iterdir()))
    if held:
        raise UserError(
            f"--out {out} is not empty ({first_of(held)}): results of two runs would be mixed. Remove it, or give "
            "another folder."
        )

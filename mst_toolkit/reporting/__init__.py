"""The report of one run, or of several beside each other, as one HTML file that needs no network.

Importing this package imports nothing else; the functions import what they need when they are called.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

__all__ = ["write_report"]
NEEDED = ("jinja2", "markupsafe", "matplotlib")


def write_report(runs: Sequence[str | Path], out: str | Path | None = None) -> Path:
    """Write the report page of a run, or the page that compares several runs.

    Only the files of the run folders are read and, for pictures, the data and the checkpoints that they name. What a
    run does not have is said in one sentence at its place.

    Args:
        runs: Run folders; with several, differences are taken from the first one.
        out: An ``.html`` file, or a folder for ``report.html``. None: ``report.html`` in the run's folder; with several
            runs, in the folder above the first one.

    Returns:
        The file written, at most 5 MB.

    Raises:
        UserError: There is no run, a folder is not a run's, one of its files is damaged, two runs are of different
            tasks, or jinja2 or matplotlib is not installed.
    """
    try:
        from .page import write_page
    except ModuleNotFoundError as error:
        if error.name not in NEEDED:
            raise
        from mst_pretrain.runtime.errors import UserError

        raise UserError(f"a report needs {error.name}. Install it: pip install jinja2 matplotlib") from error
    return write_page([Path(run) for run in runs], None if out is None else Path(out))

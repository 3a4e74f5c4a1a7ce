"""Which checkpoint of a run is whole: the file that a run goes on from when nobody names one."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from ..runtime.errors import UserError
from ..runtime.run_files import LAST, LATEST, RunFiles

STOPPED_FILE = "stopped.pth"
NUMBERED = ("iter_*.pth", "epoch_*.pth")  # MMEngine's names


def damage(path: Path) -> str:
    """What is wrong with a checkpoint that ``torch.save`` wrote; empty for a whole one.

    The file's checksums are compared, which ``torch.load`` does not do: it finds a cut file and every changed byte of a
    weight. Nothing of it is unpickled.
    """
    try:
        with zipfile.ZipFile(path) as file:
            broken = file.testzip()
    except (OSError, EOFError, ValueError, NotImplementedError, zlib.error, zipfile.BadZipFile) as error:
        size = path.stat().st_size if path.is_file() else 0
        return f"it is cut off or was overwritten ({error})" if size else "it is empty"
    return f"the checksum of its part {broken} is another" if broken else ""


def resumable(root: str | Path, tidy: bool = False) -> Iterator[Path]:
    """The checkpoints in a run's folder that a training can go on from, the newest first, each file once.

    Args:
        root: The work directory.
        tidy: Whether the config asks for a run folder: of two files of one time its own is named.
    """
    places = list[Path]()
    for layout in (tidy, not tidy):
        folder, latest = RunFiles(Path(root), layout).checkpoints, LAST if layout else LATEST
        places += [folder / latest, folder / STOPPED_FILE]
        places += [path for pattern in NUMBERED for path in sorted(folder.glob(pattern))]
    there = [(path.stat(), path) for path in places if path.is_file()]
    seen = set[tuple[int, int]]()
    for stat, path in sorted(there, key=lambda pair: -pair[0].st_mtime_ns):
        if (stat.st_dev, stat.st_ino) not in seen:
            seen.add((stat.st_dev, stat.st_ino))
            yield path


def newest_whole(root: str | Path, tidy: bool = False) -> Path | None:
    """The newest whole checkpoint of a run's folder; None where there is none at all.

    A damaged one that is newer is named in a warning.

    Raises:
        UserError: There are some, and all are damaged.
    """
    faults = list[str]()
    for path in resumable(root, tidy):
        fault = damage(path)
        if not fault:
            for line in faults:
                print(f"warning: {line}: skipped, an older checkpoint is taken", flush=True)
            return path
        faults.append(f"{path} is damaged ({fault})")
    if faults:
        listed = "; ".join(faults)
        raise UserError(
            f"no checkpoint in {root} is whole: {listed}. Copy one from a backup, or start anew with another "
            "--work-dir. [R21]"
        )
    return None

"""What is said of a folder or file of a data set that is not there: what lies there instead."""

from __future__ import annotations

from pathlib import Path

from mst_pretrain.data.files import first_of, visible
from mst_pretrain.data.suffixes import REASONS
from mst_pretrain.runtime.errors import UserError

ARCHIVES = REASONS["archives: unpack"]


def need_folder(path: Path, what: str) -> None:
    """Refuse to go on without a folder.

    Raises:
        UserError: It does not exist.
    """
    if not path.is_dir():
        raise UserError(
            f"Folder {path} ({what}) does not exist{there_instead(path)}. Check the data root or put the data there."
        )


def there_instead(path: Path) -> str:
    """What is found in the place of a missing folder or file, or nothing.

    The folder that holds it where it lies one level deeper; otherwise what lies beside it: folders, or files of its
    suffix, and archives. At most one folder of its path may be missing too.
    """
    base = next((folder for folder in list(path.parents)[:2] if folder.is_dir()), None)
    if base is None or base.samefile(Path.cwd()):  # a wrong data root: what lies beside it explains nothing
        return ""
    entries = [base / name for name in sorted(visible(entry.name for entry in base.iterdir()))]
    deeper = [folder for folder in entries if (folder / path.relative_to(base)).exists()]
    if deeper:
        return f"; it lies in {deeper[0]}"
    found = [
        f"{base.name}/{entry.name}"
        for entry in entries
        if (entry.suffix == path.suffix if entry.is_file() else not path.suffix) or entry.suffix in ARCHIVES
    ]
    return f"; found {first_of(found)}" if found else ""

"""Where configs and tools lie, in a clone or in an installed wheel, and what a child process needs to import them."""

from __future__ import annotations

import os
from pathlib import Path

INSTALLED = Path(__file__).resolve().parent  # where setup.py puts configs and tools in a wheel
CLONE = INSTALLED.parent


def resources() -> Path:
    """The folder that holds ``configs`` and ``tools``: the clone, or the installed wheel's.

    Raises:
        UserError: Neither is there.
    """
    for folder in (INSTALLED, CLONE):
        if (folder / "configs/_base_").is_dir() and (folder / "tools").is_dir():
            return folder
    from mst_pretrain.runtime.errors import UserError  # imports torch, which only a message may wait for

    raise UserError(
        f"configs and tools were not installed beside {INSTALLED}. Install the wheel of this repository "
        "(pip install mst-toolkit), or pip install -e in a clone."
    )


def find_config(path: str | Path) -> Path:
    """A config by its path; one that starts with ``configs/`` and is not there comes from the installation."""
    path = Path(path)
    if not path.exists() and path.parts[:1] == ("configs",) and (resources() / path).is_file():
        return resources() / path
    return path


def child_environment(root: Path, **values: str) -> dict[str, str]:
    """This process's environment for a child that imports the packages of ``root``; the user's PYTHONPATH stays.

    Its folders become absolute: the child may run in another folder.

    Args:
        root: A folder with the packages, first of the child's PYTHONPATH.
        values: Variables to set.
    """
    given = os.environ.get("PYTHONPATH")
    paths = [str(root), *(map(os.path.abspath, given.split(os.pathsep)) if given else ())]
    return {**os.environ, **values, "PYTHONPATH": os.pathsep.join(paths)}

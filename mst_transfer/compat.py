"""Which distributions provide mmcv, mmdet, mmseg and mmengine, and what to do when two do."""

from __future__ import annotations

from importlib import metadata
from importlib.util import find_spec

from mst_pretrain.runtime.errors import UserError

# import name -> distributions that own the same files
PROVIDERS = {
    "mmengine": ("onedl-mmengine", "mmengine", "mmengine-lite"),
    "mmcv": ("onedl-mmcv", "mmcv", "mmcv-lite", "mmcv-full"),
    "mmdet": ("onedl-mmdetection", "mmdet"),
    "mmseg": ("onedl-mmsegmentation", "mmsegmentation"),
}


class InstallationError(UserError, ImportError):
    """A package is missing or installed twice: an ``ImportError`` for importers, one line in our tools."""


def check_distributions() -> None:
    """Each of the four packages must be there, whole, and come from one distribution.

    Raises:
        InstallationError: One is missing, two distributions have overwritten each other's files, or removing one of two
            has taken the other's files with it.
    """
    for package, names in PROVIDERS.items():
        installed = [name for name in names if _is_installed(name)]
        if len(installed) > 1:
            raise InstallationError(
                f"{' and '.join(installed)} are both installed and own the same files of '{package}'. Remove them "
                f"and install one: pip uninstall -y {' '.join(installed)} && pip install {installed[0]}"
            )
        if _has_files(package):
            continue
        if installed:
            raise InstallationError(
                f"{installed[0]} is installed, but its package '{package}' is not there (removing another "
                "distribution took the files they shared). Put it back: "
                f"pip install --force-reinstall --no-deps {installed[0]}"
            )
        raise InstallationError(
            f"{package} is not installed. Install it: pip install 'mst-toolkit[transfer]'"
        )


def _has_files(package: str) -> bool:
    """False also for a folder of leftovers, which Python takes for a namespace package."""
    spec = find_spec(package)
    return spec is not None and spec.origin is not None


def _is_installed(distribution: str) -> bool:
    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True

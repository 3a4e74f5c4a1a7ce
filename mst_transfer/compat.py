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


def import_openmmlab() -> None:
    """Import mmdet and mmseg, which refuse the versions of mmcv and mmengine that they do not know.

    Raises:
        InstallationError: They refuse one.
    """
    try:
        import mmdet  # noqa: F401
        import mmseg  # noqa: F401
    except AssertionError as error:
        installed = [name for names in PROVIDERS.values() for name in names if _is_installed(name)]
        versions = ", ".join(f"{name} {metadata.version(name)}" for name in installed)
        raise InstallationError(
            f"The installed packages do not go together ({versions}): {error} With mmdet 3.3.0 and mmsegmentation "
            "1.2.2 this works: pip install mmengine==0.10.7 mmcv-lite==2.1.0"
        ) from error


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

"""Which distributions provide mmcv, mmdet, mmseg and mmengine, and what to do when two do."""

from __future__ import annotations

from importlib import metadata
from importlib.util import find_spec

from mst_pretrain.errors import UserError

# import name -> distributions that own the same files
PROVIDERS = {
    "mmengine": ("onedl-mmengine", "mmengine", "mmengine-lite"),
    "mmcv": ("onedl-mmcv", "mmcv", "mmcv-lite", "mmcv-full"),
    "mmdet": ("onedl-mmdetection", "mmdet"),
    "mmseg": ("onedl-mmsegmentation", "mmsegmentation"),
}


def check_distributions() -> None:
    """Each of the four packages must be there, and come from one distribution.

    Raises:
        UserError: One is missing, or two distributions have overwritten each other's files.
    """
    for package, names in PROVIDERS.items():
        installed = [name for name in names if _is_installed(name)]
        if len(installed) > 1:
            raise UserError(
                f"{' and '.join(installed)} are both installed and own the same files of '{package}'. Remove them "
                f"and install one: pip uninstall -y {' '.join(installed)} && pip install {installed[0]}"
            )
        if not installed and find_spec(package) is None:
            raise UserError(f"{package} is not installed. Install it: pip install 'mst-toolkit[transfer]'")


def _is_installed(distribution: str) -> bool:
    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True

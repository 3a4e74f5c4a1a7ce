"""Which distributions provide mmcv, mmdet, mmseg and mmengine, and what to do when two do; two mends of MMEngine."""

from __future__ import annotations

from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mst_pretrain.runtime.errors import UserError

# import name -> distributions that own the same files
PROVIDERS = {
    "mmengine": ("onedl-mmengine", "mmengine", "mmengine-lite"),
    "mmcv": ("onedl-mmcv", "mmcv", "mmcv-lite", "mmcv-full"),
    "mmdet": ("onedl-mmdetection", "mmdet"),
    "mmseg": ("onedl-mmsegmentation", "mmsegmentation"),
}


def check_distributions() -> None:
    """Each of the four packages must be there, whole, and come from one distribution.

    Raises:
        UserError: One is missing, two distributions have overwritten each other's files, or removing one of two
            has taken the other's files with it.
    """
    for package, names in PROVIDERS.items():
        installed = [name for name in names if _is_installed(name)]
        if len(installed) > 1:
            raise UserError(
                f"{' and '.join(installed)} are both installed and own the same files of '{package}'. Remove them "
                f"and install one: pip uninstall -y {' '.join(installed)} && pip install {installed[0]}"
            )
        if _has_files(package):
            continue
        if installed:
            raise UserError(
                f"{installed[0]} is installed, but its package '{package}' is not there (removing another "
                "distribution took the files they shared). Put it back: "
                f"pip install --force-reinstall --no-deps {installed[0]}"
            )
        raise UserError(f"{package} is not installed. Install it: pip install 'mst-toolkit[transfer]'")


def silence_onedl() -> None:
    """Drop one message of the onedl distributions: their packages print it at import where OneDL is not installed.

    It is a debug message without a logger, which MMEngine's ``print_log`` prints all the same.
    """
    logging: Any = import_module("mmengine.logging")
    print_log = logging.print_log

    def without_onedl(msg: Any, *args: Any, **kwargs: Any) -> None:
        if not str(msg).startswith("Could not import OneDL"):
            print_log(msg, *args, **kwargs)

    logging.print_log = without_onedl


def load_without_code() -> None:
    """Let MMEngine read local checkpoints with this project's loader, also for mmdet's and mmseg's own models.

    MMEngine's own, where reading weights alone fails, reads the file a second time and runs what is in it.
    """
    checkpoint_io: Any = import_module("mst_pretrain.checkpoints.storage")  # imports MMEngine
    runner: Any = import_module("mmengine.runner")

    def load_from_local(
        filename: str, map_location: Any = None
    ) -> dict[str, Any]:  # MMEngine prints the name's end
        return checkpoint_io.load_checkpoint(Path(filename).expanduser(), map_location or "cpu")

    runner.CheckpointLoader.register_scheme(prefixes="", loader=load_from_local, force=True)


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

"""Which extra of the distribution brings a library that a command needs and that is not installed."""

from __future__ import annotations

from importlib.util import find_spec

from .errors import UserError

# import names by extra; what only tests need is not here
EXTRAS: dict[str, tuple[str, ...]] = {
    "pretrain": ("mmengine", "cv2"),
    "transfer": ("mmcv", "mmdet", "mmseg", "pycocotools", "faster_coco_eval", "cityscapesscripts"),
    "report": ("jinja2", "matplotlib"),
    "logging": ("tensorboard", "wandb", "mlflow"),
    "onnx": ("onnx", "onnxruntime", "onnxscript"),
    "hub": ("huggingface_hub",),
    "huggingface": ("transformers",),
    "webdataset": ("webdataset", "braceexpand"),
    "hf": ("datasets",),
    "heic": ("pillow_heif",),
}
OPENMMLAB = ("mmengine", "mmcv", "mmdet", "mmseg")


def is_installed(package: str) -> bool:
    """Whether a top-level package can be imported; a folder of leftovers without code cannot."""
    try:
        spec = find_spec(package)
    except (ImportError, ValueError):  # None in sys.modules
        return False
    return spec is not None and spec.origin is not None


def need(*packages: str) -> None:
    """Raise a UserError that names the extra, where a package is not installed.

    Args:
        packages: Import names in :data:`EXTRAS`.
    """
    for package in packages:
        if not is_installed(package):
            raise UserError(_message(package))


def missing_extra(error: BaseException) -> UserError | None:
    """What to say of an import that failed because an extra is not installed; None for every other error."""
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return None
    package = error.name.partition(".")[0]
    known = any(package in packages for packages in EXTRAS.values())
    return UserError(_message(package)) if known and not is_installed(package) else None


def _message(package: str) -> str:
    extra = next(extra for extra, packages in EXTRAS.items() if package in packages)
    text = f"this needs the package '{package}', which is not installed. Install it: pip install 'mst-toolkit[{extra}]'"
    if package in OPENMMLAB:
        text += ", or, with OpenMMLab's own packages: pip install 'mst-toolkit[openmmlab]'"
    elif package == "cv2":
        text += ", or beside packages that you have: pip install opencv-python-headless"
    return text

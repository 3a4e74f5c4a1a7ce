"""A config and a checkpoint as a function from images to plain arrays."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import mmcv
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import MODELS

from mst_pretrain.checkpoints.loading import load_model
from mst_pretrain.checkpoints.storage import load_checkpoint, use_safe_loading
from mst_pretrain.data.files import find_fault, is_damage
from mst_pretrain.runtime.config import explain, import_custom_modules, load_config
from mst_pretrain.runtime.errors import UserError
from mst_pretrain.runtime.value_types import check_value_types

from ..evaluation.label_images import unsigned
from ..evaluation.settings import classes_of, dataset_meta, dataset_type, trained_classes
from ..evaluation.tta import ANNOTATIONS, LOAD, use_tta, wrap

ImageLike = str | Path | np.ndarray
SCOPES = ("mmdet", "mmseg")


@dataclass(frozen=True)
class Detections:
    """What a detector finds in one image, N instances by falling score.

    Attributes:
        image: The file, or None for an array.
        classes: Names by label.
        boxes: float32 [N, 4], left, top, right, bottom in pixels of the image.
        scores: float32 [N] in [0, 1].
        labels: int64 [N].
        masks: bool [N, H, W], or None from a model without masks.
        height: H.
        width: W.
        mask_scores: float32 [N] where the model scores its masks apart, else None.
    """

    image: Path | None
    classes: tuple[str, ...]
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    masks: np.ndarray | None
    height: int
    width: int
    mask_scores: np.ndarray | None = None


@dataclass(frozen=True)
class Segmentation:
    """The class of every pixel of one image.

    Attributes:
        image: The file, or None for an array.
        classes: Names by label.
        label_map: uint8 [H, W], the image's own size; uint16 of more than 256 classes.
    """

    image: Path | None
    classes: tuple[str, ...]
    label_map: np.ndarray

    @property
    def shares(self) -> dict[str, float]:
        """Share of the image's pixels by class, in [0, 1]."""
        counts = np.bincount(self.label_map.ravel(), minlength=len(self.classes))
        return {
            name: float(count / self.label_map.size) for name, count in zip(self.classes, counts, strict=True)
        }


Prediction = Detections | Segmentation


class Predictor:
    """A loaded model; called with an image, it returns its :class:`Detections` or :class:`Segmentation`.

    The image goes through the config's own test pipeline, so the predictions are those that tools/test.py scores.

    Args:
        config: A config file of mmdet or mmseg, or the config itself.
        checkpoint: Of a training with it.
        device: ``cpu``, ``cuda``, ...; None: a GPU where there is one.
        tta: Test-time augmentation: several sizes, each also mirrored.
        tta_scales: Their factors; None: the config's or the library's.

    Every later load of MMEngine in this process is safe too: see :func:`mst_transfer.use_safe_loading`.

    Attributes:
        config: As read.
        classes: Names by label: the checkpoint's own, else the config's.
        palette: [C, 3] colours by label of the data set, or None.

    Raises:
        UserError: The config or the checkpoint cannot be used.
    """

    def __init__(
        self,
        config: str | Path | Config,
        checkpoint: str | Path,
        device: str | torch.device | None = None,
        tta: bool = False,
        tta_scales: Sequence[float] | None = None,
    ) -> None:
        self.config = copy.deepcopy(config) if isinstance(config, Config) else load_config(config)
        scope = self.config.get("default_scope")
        if scope not in SCOPES or self.config.get("test_dataloader") is None:
            raise UserError(
                f"{self.config.filename} is no config of a detector or segmentor with a test_dataloader."
            )
        use_safe_loading()
        import_custom_modules(self.config)
        importlib.import_module(f"{scope}.utils").register_all_modules(init_default_scope=True)
        check_value_types(self.config)
        self.detects = scope == "mmdet"
        loaded = load_checkpoint(checkpoint)
        classes = trained_classes(loaded) or classes_of(self.config)
        if not classes:
            raise UserError(
                f"neither {checkpoint} nor {self.config.filename} has class names. Set metainfo.classes."
            )
        self.classes = classes
        self.palette = _palette(loaded, self.config, self.classes)
        self.device = _usable(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        tta_model = use_tta(self.config, tta_scales) if tta or tta_scales is not None else None
        self.pipeline, self.array_pipeline = _pipelines(self.config)
        self.model = self._build(loaded, checkpoint)
        if tta_model is not None:
            self.model = wrap(self.model, tta_model)

    def _build(self, loaded: dict[str, Any], checkpoint: str | Path) -> Any:
        settings = copy.deepcopy(self.config.model)
        if isinstance(settings.get("backbone"), dict):
            settings["backbone"]["init_cfg"] = None  # the checkpoint holds every weight
        try:
            model = MODELS.build(settings)
        except (TypeError, KeyError, ValueError, AssertionError) as error:
            explained = explain(self.config, error)
            if explained is None:
                raise
            raise explained from error
        load_model(model, loaded, checkpoint)
        return model.to(self.device).eval()

    def load(self, image: ImageLike) -> dict[str, Any]:
        """The test pipeline on one image.

        Args:
            image: A file, or RGB uint8 [H, W, 3].

        Raises:
            UserError: The file is missing, truncated or no image, or the array has another shape or type.
        """
        shared = {"img_id": 0, "seg_fields": [], "reduce_zero_label": False}
        if isinstance(image, np.ndarray):
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
                raise UserError(f"an image must be uint8 [H, W, 3] in RGB, got {image.dtype} {image.shape}.")
            return self.array_pipeline({"img": np.ascontiguousarray(image[..., ::-1]), **shared})
        fault = find_fault(image)
        if fault:
            remedy = "Copy it again" if is_damage(fault) else "Do what is said of it"
            raise UserError(f"{image} cannot be used ({fault}). {remedy}, or leave it out.")
        try:
            return self.pipeline({"img_path": str(image), **shared})
        except Exception as error:
            if _can_be_decoded(image):  # then it is a transform's error
                raise
            raise UserError(
                f"{image} cannot be decoded ({error}). Copy it again, or leave it out."
            ) from error

    @torch.no_grad()
    def __call__(self, image: ImageLike) -> Prediction:
        """Predict one image.

        Raises:
            UserError: As :meth:`load`.
        """
        sample = self.model.test_step(pseudo_collate([self.load(image)]))[0]
        path = None if isinstance(image, np.ndarray) else Path(image)
        if not self.detects:
            label_map = unsigned(sample.pred_sem_seg.data[0].cpu().numpy(), len(self.classes) - 1)
            return Segmentation(path, self.classes, label_map)
        found = sample.pred_instances.cpu()
        masks = np.asarray(torch.as_tensor(found.masks)).astype(bool) if "masks" in found else None
        height, width = sample.ori_shape[:2]
        arrays = (found.bboxes.numpy(), found.scores.numpy(), found.labels.numpy())
        mask_scores = found.mask_scores.numpy() if "mask_scores" in found else None
        return Detections(path, self.classes, *arrays, masks, height, width, mask_scores)


def predict(
    config: str | Path | Config,
    checkpoint: str | Path,
    images: ImageLike | Sequence[ImageLike],
    device: str | torch.device | None = None,
    tta: bool = False,
) -> list[Prediction]:
    """Predict images with a detector or segmentor.

    Args:
        config: Config file, or the config itself.
        checkpoint: Of a training with it.
        images: One or several: files, or RGB uint8 arrays [H, W, 3].
        device: None: a GPU where there is one.
        tta: Test-time augmentation.

    Returns:
        A :class:`Detections` or :class:`Segmentation` with numpy arrays per image, in their order.

    Raises:
        UserError: The config, the checkpoint or an image cannot be used.
    """
    predictor = Predictor(config, checkpoint, device, tta)
    return [predictor(image) for image in ([images] if isinstance(images, ImageLike) else images)]


def _pipelines(cfg: Config) -> tuple[Compose, Compose]:
    """The test pipeline without labels, for a file and for an array."""
    steps = [
        _without_labels(dict(step))
        for step in cfg.test_dataloader.dataset.pipeline
        if step["type"] != ANNOTATIONS
    ]
    from_array = [
        dict(step, type="LoadImageFromNDArray") if step["type"] == LOAD else dict(step) for step in steps
    ]
    # TestTimeAug builds its transforms into the lists that it is given
    return Compose(copy.deepcopy(steps)), Compose(copy.deepcopy(from_array))


def _usable(device: str | torch.device) -> torch.device:
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"--device {device} cannot be used here. Give cpu; cuda, cuda:1, ... need a GPU, and "
            f"{torch.cuda.device_count()} are visible."
        ) from error


def _can_be_decoded(path: str | Path) -> bool:
    """Whether OpenCV, the pipelines' reader, gives pixels for a file."""
    try:
        return mmcv.imread(str(path)) is not None
    except cv2.error:
        return False


def _without_labels(step: dict[str, Any]) -> dict[str, Any]:
    if step["type"] != "TestTimeAug":
        return step
    kept = [[s for s in group if s["type"] != ANNOTATIONS] for group in step["transforms"]]
    return dict(step, transforms=[group for group in kept if group])


def _palette(loaded: dict[str, Any], cfg: Config, classes: tuple[str, ...]) -> np.ndarray | None:
    """Colours by class name, of the checkpoint's data set or of the config's type."""
    known = getattr(dataset_type(cfg), "METAINFO", {})
    own = dataset_meta(loaded).get("palette")
    if own is not None and len(own) == len(classes):
        return np.asarray(own, np.uint8)
    if known.get("palette") is None or not set(classes) <= set(known.get("classes", ())):
        return None
    return np.asarray([known["palette"][known["classes"].index(name)] for name in classes], np.uint8)

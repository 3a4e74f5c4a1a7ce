"""A config and a checkpoint as a function from images to plain arrays."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Iterator, Mapping, Sequence
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
from mst_pretrain.runtime.devices import precision_on, run_in
from mst_pretrain.runtime.errors import UserError
from mst_pretrain.runtime.value_types import check_value_types

from ..evaluation.label_images import unsigned
from ..evaluation.settings import classes_of, dataset_meta, dataset_type, trained_classes
from ..evaluation.tta import ANNOTATIONS, LOAD, use_tta, wrap
from .predictions import Detections, Prediction, Segmentation

ImageLike = str | Path | np.ndarray
SCOPES = ("mmdet", "mmseg")
WINDOW = 4  # batches of images that are loaded at once, to find equal shapes among them


class Predictor:
    """A loaded model; called with an image, it returns its :class:`Detections` or :class:`Segmentation`.

    The image goes through the config's own test pipeline, so the predictions are those that tools/test.py scores.

    Args:
        config: A config file of mmdet or mmseg, or the config itself.
        checkpoint: Of a training with it.
        device: ``cpu``, ``cuda``, ...; None: a GPU where there is one.
        tta: Test-time augmentation: several sizes, each also mirrored.
        tta_scales: Their factors; None: the config's or the library's.
        dtype: Of a detector's backbone and neck, and of a whole segmentor: ``float32``, ``bfloat16``, or ``auto``:
            bfloat16 on a GPU that computes in it, else float32. Boxes are computed in float32 always: the pixels of a
            large image have no number of their own in bfloat16.

    Every later load of MMEngine in this process is safe too: see :func:`mst_transfer.use_safe_loading`.

    Attributes:
        config: As read.
        classes: Names by label: the checkpoint's own, else the config's.
        palette: [C, 3] colours by label of the data set, or None.
        precision: ``float32`` or ``bfloat16``.

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
        dtype: str = "auto",
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
        self.precision = precision_on(self.device, dtype)
        self.model = self._build(loaded, checkpoint)
        if self.precision != "float32":
            part = "extract_feat" if self.detects else "encode_decode"
            setattr(self.model, part, run_in(self.precision, self.device, getattr(self.model, part)))
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

    def __call__(self, image: ImageLike) -> Prediction:
        """Predict one image.

        Raises:
            UserError: As :meth:`load`.
        """
        return self._predict([image], [self.load(image)])[0]

    def in_batches(
        self, images: Sequence[ImageLike], batch_size: int
    ) -> Iterator[tuple[int, Prediction | UserError]]:
        """Predict images of equal shape together, as one by one up to float rounding: nothing is padded for a batch.

        Args:
            images: As :meth:`load` takes them.
            batch_size: At most this many in one forward pass; four times as many are loaded at once.

        Yields:
            Every image's place and its prediction, or why it cannot be used; neighbours may change places.
        """
        for first in range(0, len(images), WINDOW * batch_size):
            loaded: dict[int, dict[str, Any]] = {}
            for place in range(first, min(first + WINDOW * batch_size, len(images))):
                try:
                    loaded[place] = self.load(images[place])
                except UserError as error:
                    yield place, error
            for places in _equal_shapes(loaded, batch_size):
                found = self._predict(
                    [images[place] for place in places], [loaded.pop(place) for place in places]
                )
                yield from zip(places, found, strict=True)

    @torch.no_grad()
    def _predict(self, images: Sequence[ImageLike], loaded: Sequence[dict[str, Any]]) -> list[Prediction]:
        samples = self.model.test_step(pseudo_collate(loaded))
        return [self._plain(*pair) for pair in zip(images, samples, strict=True)]

    def _plain(self, image: ImageLike, sample: Any) -> Prediction:
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
    batch_size: int = 1,
    dtype: str = "auto",
) -> list[Prediction]:
    """Predict images with a detector or segmentor.

    Args:
        config: Config file, or the config itself.
        checkpoint: Of a training with it.
        images: One or several: files, or RGB uint8 arrays [H, W, 3].
        device: None: a GPU where there is one.
        tta: Test-time augmentation.
        batch_size: Images of equal shape in one forward pass.
        dtype: As in :class:`Predictor`.

    Returns:
        A :class:`Detections` or :class:`Segmentation` with numpy arrays per image, in their order.

    Raises:
        UserError: The config, the checkpoint or an image cannot be used.
    """
    predictor = Predictor(config, checkpoint, device, tta, dtype=dtype)
    wanted = [images] if isinstance(images, ImageLike) else images
    found: dict[int, Prediction] = {}
    for place, prediction in predictor.in_batches(wanted, batch_size):
        if isinstance(prediction, UserError):
            raise prediction
        found[place] = prediction
    return [found[place] for place in range(len(wanted))]


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


def _equal_shapes(loaded: Mapping[int, dict[str, Any]], most: int) -> list[list[int]]:
    """The keys of images whose tensors, and whose own sizes, are equal: at most ``most`` together."""
    groups: dict[Any, list[list[int]]] = {}
    for place, data in loaded.items():
        views, samples = (
            data[key] if isinstance(data[key], list) else [data[key]] for key in ("inputs", "data_samples")
        )
        shapes = tuple((view.shape, sample.ori_shape) for view, sample in zip(views, samples, strict=True))
        groups.setdefault(shapes, [[]])
        if len(groups[shapes][-1]) == most:
            groups[shapes].append([])
        groups[shapes][-1].append(place)
    return [places for group in groups.values() for places in group]


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

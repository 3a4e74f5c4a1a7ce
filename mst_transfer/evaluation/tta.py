"""Test-time augmentation: several sizes, each as it is and mirrored, merged into one prediction."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel
from mmengine.registry import MODELS
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mst_pretrain.runtime.errors import UserError

SCALES = {"mmdet": (0.5, 1.0, 1.5), "mmseg": (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)}  # [code: mmdet, mmseg]
FACTORS = (0.1, 10.0)  # least and largest of a view
MODEL = {"mmdet": dict(type="MSTDetTTAModel"), "mmseg": dict(type="SegTTAModel")}
LOAD, RESIZE, ANNOTATIONS = "LoadImageFromFile", "Resize", "LoadAnnotations"


def use_tta(cfg: Config, scales: Sequence[float] | None = None) -> dict[str, Any]:
    """Replace the test pipeline by one that makes several views.

    Args:
        cfg: Changed in place. Its own ``tta_pipeline`` and ``tta_model``, mmdet's and mmseg's names, are used when it
            has both and ``scales`` is None.
        scales: Factors of the test pipeline's size.

    Returns:
        The config of the model that merges the views, still without its ``module``.

    Raises:
        UserError: A factor is out of :data:`FACTORS`, or the test pipeline has no ``Resize`` with a size to scale.
    """
    for factor in scales or ():
        if not FACTORS[0] <= factor <= FACTORS[1]:
            raise UserError(
                f"--tta-scales {factor:g}: give factors of the test size from {FACTORS[0]:g} to {FACTORS[1]:g}, e.g. "
                "--tta-scales 0.5 1 1.5"
            )
    dataset = cfg.test_dataloader.dataset
    if scales is None and "tta_pipeline" in cfg and "tta_model" in cfg:
        dataset.pipeline = copy.deepcopy(cfg.tta_pipeline)
        return {key: value for key, value in cfg.tta_model.items() if key != "module"}
    scope = cfg.get("default_scope")
    pipeline = [step for step in dataset.pipeline if step.type != ANNOTATIONS]
    annotations = [step for step in dataset.pipeline if step.type == ANNOTATIONS and scope == "mmseg"]
    places = [place for place, step in enumerate(pipeline) if step.type == RESIZE and step.get("scale")]
    if scope not in MODEL or len(places) != 1:
        raise UserError(
            f"--tta: {cfg.filename} is no config of mmdet or mmseg whose test pipeline has one Resize with a scale. "
            "Put tta_pipeline and tta_model into the config, as mmdet's and mmseg's documentation shows."
        )
    before, resize, after = pipeline[: places[0]], pipeline[places[0]], pipeline[places[0] + 1 :]
    width, height = resize.scale
    sizes = [
        dict(resize, scale=(round(width * factor), round(height * factor)))
        for factor in scales or SCALES[scope]
    ]
    # label maps are loaded behind the flip and stay as they are: predictions are mirrored back
    rest = [[_with_flip_keys(step)] for step in (*annotations, *after)]
    flips = [dict(type="RandomFlip", prob=0.0), dict(type="RandomFlip", prob=1.0)]
    dataset.pipeline = [*before, dict(type="TestTimeAug", transforms=[sizes, flips, *rest])]
    return dict(MODEL[scope])


def _with_flip_keys(step: dict[str, Any]) -> dict[str, Any]:
    keys = step.get("meta_keys")
    return dict(step) if keys is None else dict(step, meta_keys=(*keys, "flip", "flip_direction"))


class TTAHook(Hook):
    """Puts the merging model around the tested one after its weights are loaded; the plain one under DDP."""

    def __init__(self, model: dict[str, Any]) -> None:
        self.model = model

    def before_test(self, runner: Any) -> None:
        """Wrap."""
        runner.model = wrap(getattr(runner.model, "module", runner.model), self.model)


def wrap(module: nn.Module, model: dict[str, Any]) -> nn.Module:
    """The merging model around ``module``, on its device."""
    return MODELS.build(dict(model, module=module)).to(next(module.parameters()).device).eval()


@MODELS.register_module()
class MSTDetTTAModel(BaseTTAModel):
    """Test-time augmentation of two-stage detectors, masks included; mmdet's DetTTAModel merges boxes only.

    As in detectron2's GeneralizedRCNNWithTTA: the boxes of all views go through one class-wise NMS with the model's own
    threshold, then every view predicts masks for the boxes that remain, and their probabilities are averaged.

    Raises:
        UserError: The model is not a two-stage detector.
    """

    def __init__(self, module: nn.Module | dict[str, Any], **kwargs: Any) -> None:
        super().__init__(module, **kwargs)
        if not hasattr(self.module, "roi_head") or not hasattr(self.module, "rpn_head"):
            raise UserError(
                f"--tta: {type(self.module).__name__} is not a two-stage detector. Leave --tta out, or set tta_model "
                "and tta_pipeline in the config."
            )

    @torch.no_grad()
    def test_step(self, data: dict[str, Any]) -> list[Any]:
        """Merged predictions of a batch; ``data`` holds one list per view, see MMEngine's BaseTTAModel."""
        views = [
            self.module.data_preprocessor({key: value[i] for key, value in data.items()}, False)
            for i in range(len(data["inputs"]))
        ]
        features, found = [], []
        for view in views:
            features.append(self.module.extract_feat(view["inputs"]))
            metas = [sample.metainfo for sample in view["data_samples"]]
            proposals = self.module.rpn_head.predict(features[-1], view["data_samples"], rescale=False)
            head = self.module.roi_head
            found.append(head.predict_bbox(features[-1], metas, proposals, head.test_cfg, rescale=False))
        merged = []
        for image, sample in enumerate(views[0]["data_samples"]):
            metas = [view["data_samples"][image].metainfo for view in views]
            results = self._merge_boxes([per_view[image] for per_view in found], metas)
            if self.module.roi_head.with_mask:
                maps = [[level[image : image + 1] for level in view] for view in features]
                results = self._masks(results, maps, metas)
            sample.pred_instances = results
            merged.append(sample)
        return merged

    def merge_preds(self, data_samples_list: Any) -> Any:
        """Not called: test_step needs the views' features, not only their predictions."""
        raise NotImplementedError

    def _merge_boxes(self, found: Sequence[InstanceData], metas: Sequence[dict[str, Any]]) -> InstanceData:
        from mmcv.ops import batched_nms

        cfg = self.module.roi_head.test_cfg
        boxes = torch.cat([_to_image(view.bboxes, meta) for view, meta in zip(found, metas, strict=True)])
        scores, labels = (torch.cat([view[key] for view in found]) for key in ("scores", "labels"))
        results = InstanceData()
        kept, places = batched_nms(boxes, scores, labels, cfg.nms)
        results.bboxes, results.scores = kept[: cfg.max_per_img, :4], kept[: cfg.max_per_img, 4]
        results.labels = labels[places][: cfg.max_per_img]
        return results

    def _masks(
        self, results: InstanceData, features: Sequence[list[Tensor]], metas: Sequence[dict[str, Any]]
    ) -> InstanceData:
        """Add masks [N, H, W] at the image's own size: probabilities averaged over views and stages."""
        head = self.module.roi_head
        stages = list(range(len(head.mask_head))) if isinstance(head.mask_head, nn.ModuleList) else [None]
        last = head.mask_head if stages == [None] else head.mask_head[-1]
        probabilities: list[Tensor] = []
        for maps, meta in zip(features, metas, strict=True):
            boxes = _to_view(results.bboxes, meta)
            rois = torch.cat([boxes.new_zeros(len(boxes), 1), boxes], dim=1)
            for stage in stages if len(boxes) else ():
                arguments = (maps, rois) if stage is None else (stage, maps, rois)
                predicted = head._mask_forward(*arguments)["mask_preds"].sigmoid()
                probabilities.append(predicted.flip(-1) if meta.get("flip") else predicted)
        mean = torch.stack(probabilities).mean(0) if probabilities else results.bboxes
        meta = dict(metas[0], scale_factor=(1.0, 1.0))
        return last.predict_by_feat(
            (mean,), [results], [meta], head.test_cfg, rescale=True, activate_map=True
        )[0]


def _to_image(boxes: Tensor, meta: dict[str, Any]) -> Tensor:
    """Boxes [N, 4] xyxy of a view in the image's own coordinates."""
    return _mirrored(boxes / _scale(boxes, meta), meta)


def _to_view(boxes: Tensor, meta: dict[str, Any]) -> Tensor:
    """The inverse of :func:`_to_image`."""
    return _mirrored(boxes, meta) * _scale(boxes, meta)


def _scale(boxes: Tensor, meta: dict[str, Any]) -> Tensor:
    return boxes.new_tensor(meta["scale_factor"]).repeat(2)


def _mirrored(boxes: Tensor, meta: dict[str, Any]) -> Tensor:
    """Left and right exchanged where the view is flipped; ``boxes`` in the image's own coordinates."""
    if not meta.get("flip"):
        return boxes
    if meta["flip_direction"] != "horizontal":
        raise UserError(
            f"--tta: flips must be horizontal, tta_pipeline has {meta['flip_direction']}. Correct it."
        )
    left, top, right, bottom = boxes.unbind(-1)
    width = meta["ori_shape"][1]
    return torch.stack([width - right, top, width - left, bottom], dim=-1)

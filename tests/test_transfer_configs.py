"""The full-size COCO and Cityscapes configs: they build, and their values are FACTS' and the named sources'."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import nn

import mst_transfer  # noqa: F401, registers
from mst_pretrain.runtime.config import load_config
from mst_transfer.evaluation.tta import use_tta

CONFIGS = Path(__file__).parents[1] / "configs"
NEW = [
    "coco/mask_rcnn_mst_3x.py",
    "coco/cascade_mask_rcnn_mst.py",
    "coco/cascade_mask_rcnn_mst_deit-s.py",
    "cityscapes/upernet_mst_80k.py",
    "cityscapes/upernet_mst_deit-s_80k.py",
    "cityscapes/setr_pup_mst_deit-s.py",
    "cityscapes/setr_mla_mst_deit-s.py",
]
OLD = [
    "coco/mask_rcnn_mst.py",
    "coco/mask_rcnn_mst_deit-s_1x.py",
    "cityscapes/upernet_mst.py",
    "cityscapes/upernet_mst_deit-s.py",
]
TAG = re.compile(r"\[(paper|summary|ours|code: [^]]+)\]|\bours\b")
DEPENDS_ON_SOURCE = re.compile(
    r"(lr=|weight_decay=|drop_path_rate=|layer_decay_rate=|LinearLR|PolyLR|MultiStepLR|out_indices=|max_epochs=|"
    r"max_iters=|tta_sizes =)"
)


def build(cfg: Config) -> nn.Module:
    """The model without memory for its weights."""
    from mmdet.registry import MODELS as DETECTORS
    from mmseg.registry import MODELS as SEGMENTORS

    cfg.model.backbone.init_cfg = None
    registry = DETECTORS if cfg.default_scope == "mmdet" else SEGMENTORS
    with DefaultScope.overwrite_default_scope(cfg.default_scope), torch.device("meta"):
        return registry.build(cfg.model)


def parameters(module: Any) -> int:
    """Their number."""
    return sum(parameter.numel() for parameter in module.parameters())


def rates(model: nn.Module, cfg: Config) -> dict[str, dict[str, Any]]:
    """Optimizer group of every parameter by name."""
    from mmengine.optim import build_optim_wrapper

    on_a_cpu = {**cfg.optim_wrapper, "type": "OptimWrapper"}
    groups = build_optim_wrapper(model, on_a_cpu).optimizer.param_groups
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[id(parameter)]: group for group in groups for parameter in group["params"]}


def test_precision_is_the_sources() -> None:
    """Mask R-CNN would train several times slower than its source on a GPU, UperNet in another precision."""
    found = {name: load_config(CONFIGS / name).optim_wrapper.type for name in (*NEW, *OLD)}
    assert found == {name: f"{'Amp' if 'coco' in name else ''}OptimWrapper" for name in found}


def test_every_full_size_config_is_listed() -> None:
    """A config would be shipped that no test reads."""
    found = {
        str(path.relative_to(CONFIGS))
        for folder in ("coco", "cityscapes")
        for path in (CONFIGS / folder).glob("*_mst*.py")
    }
    assert found == {*NEW, *OLD}


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("coco/mask_rcnn_mst_3x.py", 47.8),  # published: 48M [code: Swin detection]
        ("coco/cascade_mask_rcnn_mst.py", 85.6),  # published: 86M [code: Swin detection]
    ],
)
def test_it_builds_at_the_published_size(name: str, millions: float) -> None:
    """A head would be wider, missing or unknown to the library: the figures would be of another network."""
    model = build(load_config(CONFIGS / name))
    assert parameters(model) / 1e6 == pytest.approx(millions, abs=0.05)


def test_both_cascades_have_the_same_heads() -> None:
    """Swin-T and DeiT-S would be compared with different detectors."""
    swin, deit = (build(load_config(CONFIGS / name)) for name in NEW[1:3])
    assert parameters(swin.roi_head) == parameters(deit.roi_head)
    assert parameters(swin.rpn_head) == parameters(deit.rpn_head)


def test_three_times_schedule() -> None:
    """The 3x figures would not be comparable: 36 epochs, steps at 27 and 33, drop path 0.2."""
    base, cfg = load_config(CONFIGS / OLD[0]), load_config(CONFIGS / NEW[0])
    warmup, steps = cfg.param_scheduler
    assert (warmup.type, warmup.start_factor, warmup.end, warmup.by_epoch) == ("LinearLR", 0.001, 500, False)
    assert (steps.type, steps.milestones, steps.gamma, steps.end) == ("MultiStepLR", [27, 33], 0.1, 36)
    assert (cfg.train_cfg.max_epochs, cfg.model.backbone.drop_path_rate) == (36, 0.2)
    for changed in (base, cfg):
        changed.param_scheduler = changed.train_cfg.max_epochs = changed.model.backbone.drop_path_rate = None
    assert base._cfg_dict == cfg._cfg_dict


@pytest.mark.parametrize("name", NEW[1:3])
def test_cascade_follows_ibot(name: str) -> None:
    """Cascade Mask R-CNN's figures (supervised 46.2 / 40.1, iBOT 49.4 / 42.6) would not be comparable."""
    cfg = load_config(CONFIGS / name)
    heads = cfg.model.roi_head.bbox_head
    assert cfg.model.roi_head.stage_loss_weights == [1, 0.5, 0.25]
    assert [head.bbox_coder.target_stds for head in heads] == [
        [0.1, 0.1, 0.2, 0.2],
        [0.05, 0.05, 0.1, 0.1],
        [0.033, 0.033, 0.067, 0.067],
    ]
    for head in heads:
        assert (head.type, head.num_shared_convs, head.num_shared_fcs) == ("ConvFCBBoxHead", 4, 1)
        assert (head.loss_bbox.type, head.loss_bbox.loss_weight) == ("GIoULoss", 10.0)
        assert head.reg_decoded_bbox is True and head.reg_class_agnostic is False
    assert [stage.assigner.pos_iou_thr for stage in cfg.model.train_cfg.rcnn] == [0.5, 0.6, 0.7]
    assert cfg.model.rpn_head.loss_bbox.beta == pytest.approx(1 / 9)
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ("AdamW", 1e-4, 0.05)
    assert cfg.param_scheduler[1].milestones == [8, 11] and cfg.train_cfg.max_epochs == 12
    if "deit" in name:
        assert cfg.optim_wrapper.paramwise_cfg == {"layer_decay_rate": 0.8, "num_layers": 12}
        assert cfg.model.backbone.out_indices == (3, 5, 7, 11) and cfg.model.backbone.drop_path_rate == 0.1
        assert cfg.auto_scale_lr.base_batch_size == 32
    else:
        same = load_config(CONFIGS / OLD[0])
        assert cfg.optim_wrapper == same.optim_wrapper and cfg.auto_scale_lr == same.auto_scale_lr
        assert cfg.model.backbone.drop_path_rate == 0.2
    data = load_config(CONFIGS / OLD[0])
    assert cfg.train_dataloader == data.train_dataloader and cfg.test_dataloader == data.test_dataloader


@pytest.mark.parametrize(("name", "base"), list(zip(NEW[3:5], OLD[2:], strict=True)))
def test_eighty_thousand_iterations(name: str, base: str) -> None:
    """The decay would end at 40k, and the second half of the run train at rate 0."""
    short, cfg = load_config(CONFIGS / base), load_config(CONFIGS / name)
    assert (short.train_cfg.max_iters, cfg.train_cfg.max_iters) == (40000, 80000)
    assert [s.end for s in cfg.param_scheduler] == [1500, 80000] and cfg.param_scheduler[1].power == 1.0
    short.param_scheduler[1].end = 80000
    assert cfg.param_scheduler == short.param_scheduler
    for key in ("model", "optim_wrapper", "train_dataloader", "test_dataloader", "auto_scale_lr"):
        assert cfg[key] == short[key], key


@pytest.mark.parametrize(
    ("name", "lr", "taps"), [(NEW[5], 0.01, (4, 7, 9, 11)), (NEW[6], 0.002, (2, 5, 8, 11))]
)
def test_setr_follows_its_code(name: str, lr: float, taps: tuple[int, ...]) -> None:
    """What the paper's 74.04 mIoU fits would be another recipe: crop, taps, rates, auxiliary heads, windows."""
    cfg = load_config(CONFIGS / name)
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.momentum, optimizer.weight_decay) == ("SGD", lr, 0.9, 0.0)
    assert cfg.optim_wrapper.paramwise_cfg.custom_keys == {"head": {"lr_mult": 10.0}}
    (poly,) = cfg.param_scheduler
    assert (poly.type, poly.power, poly.eta_min, poly.begin, poly.end) == ("PolyLR", 0.9, 1e-4, 0, 40000)
    assert cfg.train_cfg.max_iters == 40000
    assert (cfg.train_dataloader.batch_size, cfg.auto_scale_lr.base_batch_size) == (1, 8)
    assert cfg.model.backbone.out_indices == taps and cfg.model.backbone.normed_taps == "none"
    assert [head.loss_decode.loss_weight for head in cfg.model.auxiliary_head] == [0.4] * 4
    assert [head.in_index for head in cfg.model.auxiliary_head] == [0, 1, 2, 3]
    crop = cfg.train_dataloader.dataset.pipeline[3]
    assert (crop.type, crop.crop_size) == ("RandomCrop", (768, 768))
    assert tuple(cfg.model.data_preprocessor["size"]) == (768, 768)
    assert cfg.model.test_cfg == {"mode": "slide", "crop_size": (768, 768), "stride": (512, 512)}


@pytest.mark.parametrize("name", NEW[5:])
def test_every_rate_of_setr(name: str) -> None:
    """A head would learn at the backbone's rate, or the neck, which SETR keeps in the backbone, at the heads'."""
    cfg = load_config(CONFIGS / name)
    model = build(cfg)
    found = rates(model, cfg)
    assert set(found) == {name for name, _ in model.named_parameters()}
    base = cfg.optim_wrapper.optimizer.lr
    for key, group in found.items():
        part = key.partition(".")[0]
        wanted = {"backbone": base, "neck": base, "decode_head": 10 * base, "auxiliary_head": 10 * base}[part]
        assert (group["lr"], group["weight_decay"]) == (pytest.approx(wanted), 0.0), key


@pytest.mark.parametrize("name", NEW[5:])
def test_setr_sees_every_tap(name: str) -> None:
    """A tap would not reach its head, or a map come out at another size than a whole or a quarter of the crop."""
    cfg = load_config(CONFIGS / name)
    cfg.model.backbone.model_args = dict(img_size=64, depth=12, embed_dim=32, num_heads=2)
    heads = [cfg.model.decode_head, *cfg.model.auxiliary_head]
    if "neck" in cfg.model:
        cfg.model.neck.in_channels = [32] * 4
    else:
        for head in heads:
            head.in_channels = 32
    cfg.model.backbone.init_cfg = None
    from mmseg.registry import MODELS

    with DefaultScope.overwrite_default_scope("mmseg"):
        model = MODELS.build(cfg.model)
    features = model.extract_feat(torch.rand(2, 3, 64, 64))
    outputs = [model.decode_head(features), *(head(features) for head in model.auxiliary_head)]
    sides = [64, 16, 16, 16, 16] if "pup" in name else [16, 4, 4, 4, 4]
    assert [tuple(out.shape) for out in outputs] == [(2, 19, side, side) for side in sides]
    sum(out.sum() for out in outputs).backward()
    assert not [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]


@pytest.mark.parametrize("name", [*OLD, *NEW])
def test_augmented_testing_keeps_the_sizes(name: str) -> None:
    """--tta would test at sizes around another than the config's own, or not mirror."""
    cfg = load_config(CONFIGS / name)
    resize = [step for step in cfg.test_dataloader.dataset.pipeline if step.type == "Resize"]
    model = use_tta(cfg)
    sizes, flips, *_ = cfg.test_dataloader.dataset.pipeline[1].transforms
    factors = (0.5, 1.0, 1.5) if "coco" in name else (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
    width, height = resize[0].scale
    for step, factor in zip(sizes, factors, strict=True):
        assert step.scale == pytest.approx((width * factor, height * factor), abs=1) and step.keep_ratio
    assert [flip.prob for flip in flips] == [0.0, 1.0]
    assert model["type"] == ("MSTDetTTAModel" if "coco" in name else "SegTTAModel")


@pytest.mark.parametrize("name", [*NEW, "_base_/setr.py"])
def test_values_name_their_source(name: str) -> None:
    """A reader could not tell the literature's values from ours."""
    text = (CONFIGS / name).read_text()
    whole = "All values [code: SETR] unless tagged otherwise" in text
    lines = [line for line in text.splitlines() if DEPENDS_ON_SOURCE.search(line)]
    assert [line for line in lines if not TAG.search(line) and not whole] == []

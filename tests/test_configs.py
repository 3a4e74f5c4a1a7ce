"""The shipped configs: values of the recipes, paths that fit together, sources on the lines."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from mst_pretrain.runtime.config import load_config

CONFIGS = Path(__file__).parents[1] / "configs"
TRANSFER = [
    "coco/mask_rcnn_mst.py",
    "coco/mask_rcnn_mst_3x.py",
    "coco/mask_rcnn_mst_deit-s_1x.py",
    "coco/cascade_mask_rcnn_mst.py",
    "coco/cascade_mask_rcnn_mst_deit-s.py",
    "cityscapes/upernet_mst.py",
    "cityscapes/upernet_mst_80k.py",
    "cityscapes/upernet_mst_deit-s.py",
    "cityscapes/upernet_mst_deit-s_80k.py",
    "cityscapes/setr_pup_mst_deit-s.py",
    "cityscapes/setr_mla_mst_deit-s.py",
    "probe/dense_probe_vit.py",
    "probe/dense_probe_swin.py",
]
TAG = re.compile(r"\[(paper|summary|ours|code: [^]]+)\]|\bours\b")


def strings(node: Any) -> list[str]:
    """All strings in a config."""
    if isinstance(node, str):
        return [node]
    children = node.values() if isinstance(node, dict) else node if isinstance(node, (list, tuple)) else ()
    return [text for child in children for text in strings(child)]


@pytest.mark.parametrize("name", TRANSFER)
def test_pretrained_weights_stand_where_pretraining_leaves_them(name: str) -> None:
    """Fine-tuning with no option would not find the checkpoint, or take the student's weights."""
    init = load_config(CONFIGS / name).model.backbone.init_cfg
    work_dir, file = Path(init.checkpoint).parent, Path(init.checkpoint).name
    assert (
        work_dir.parent == Path("work_dirs") and file == "latest.pth" and init.prefix == "teacher.backbone."
    )
    pretraining = load_config(CONFIGS / "pretrain" / f"{work_dir.name}.py")
    kind = load_config(CONFIGS / name).model.backbone.model
    assert pretraining.model.backbone.name == kind


@pytest.mark.parametrize("name", TRANSFER)
def test_data_root_reaches_every_path(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """data_root=X would train on X and evaluate on the annotations of the default folder."""
    cfg = load_config(CONFIGS / name, {"data_root": "/photos"})
    assert not [text for text in strings(cfg._cfg_dict) if text.startswith("data/")]
    roots = [cfg[f"{split}_dataloader"].dataset.data_root for split in ("train", "val", "test")]
    assert roots == ["/photos/"] * 3
    if "coco" in name:
        assert (
            cfg.val_evaluator.ann_file
            == cfg.test_evaluator.ann_file
            == "/photos/annotations/instances_val2017.json"
        )
    monkeypatch.setenv("MST_DATA", "/elsewhere")
    by_environment = load_config(CONFIGS / name)
    assert by_environment.train_dataloader.dataset.data_root.startswith("/elsewhere/c")


def test_mask_rcnn_swin_follows_the_recipe() -> None:
    """The 1x figures would not be comparable with the published ones."""
    cfg = load_config(CONFIGS / "coco/mask_rcnn_mst.py")
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ("AdamW", 1e-4, 0.05)
    assert optimizer.betas == (0.9, 0.999) and "clip_grad" not in cfg.optim_wrapper
    undecayed = {key: value.decay_mult for key, value in cfg.optim_wrapper.paramwise_cfg.custom_keys.items()}
    assert undecayed == {"absolute_pos_embed": 0, "relative_position_bias_table": 0, "norm": 0}
    assert "bias_decay_mult" not in cfg.optim_wrapper.paramwise_cfg
    warmup, steps = cfg.param_scheduler
    assert (warmup.start_factor, warmup.end, steps.milestones, steps.gamma) == (0.001, 500, [8, 11], 0.1)
    assert (cfg.train_cfg.max_epochs, cfg.model.backbone.drop_path_rate, cfg.train_dataloader.batch_size) == (
        12,
        0.1,
        2,
    )
    choices = cfg.train_dataloader.dataset.pipeline[3].transforms
    assert [scale[0] for scale in choices[0][0].scales] == [
        480,
        512,
        544,
        576,
        608,
        640,
        672,
        704,
        736,
        768,
        800,
    ]
    assert {scale[1] for scale in choices[0][0].scales} == {1333}
    assert choices[1][1].crop_size == (384, 600)
    assert cfg.test_dataloader.dataset.pipeline[1].scale == (1333, 800)


@pytest.mark.parametrize(
    ("name", "rate", "decay", "groups", "lr"),
    [
        ("coco/mask_rcnn_mst_deit-s_1x.py", 0.05, 0.8, 14, 1e-4),
        ("cityscapes/upernet_mst_deit-s.py", 0.05, 0.9, 14, 3e-5),
    ],
)
def test_deit_configs_follow_ibot(name: str, rate: float, decay: float, groups: int, lr: float) -> None:
    """Layer decay or pyramid taps would differ from the recipe the configs name."""
    cfg = load_config(CONFIGS / name)
    paramwise = cfg.optim_wrapper.paramwise_cfg
    assert (paramwise.layer_decay_rate, paramwise.num_layers + 2) == (decay, groups)
    assert (cfg.optim_wrapper.optimizer.lr, cfg.optim_wrapper.optimizer.weight_decay) == (lr, rate)
    assert cfg.model.backbone.out_indices == (3, 5, 7, 11) and cfg.model.backbone.drop_path_rate == 0.1


def test_upernet_swin_follows_the_recipe() -> None:
    """The Cityscapes figures would not be comparable with other UperNet runs of 40k iterations."""
    cfg = load_config(CONFIGS / "cityscapes/upernet_mst.py")
    assert (cfg.optim_wrapper.optimizer.lr, cfg.optim_wrapper.optimizer.weight_decay) == (6e-5, 0.01)
    assert (cfg.train_cfg.max_iters, cfg.model.backbone.drop_path_rate) == (40000, 0.3)
    warmup, poly = cfg.param_scheduler
    assert (warmup.end, poly.begin, poly.end, poly.power) == (1500, 1500, 40000, 1.0)
    assert (
        cfg.train_dataloader.dataset.pipeline[3].crop_size
        == (512, 1024)
        == tuple(cfg.model.data_preprocessor.size)
    )


def test_probe_trains_one_linear_layer() -> None:
    """The probe would measure a head's capacity instead of the frozen features."""
    model = load_config(CONFIGS / "probe/dense_probe_vit.py").model
    assert model.backbone.frozen_stages == 12 and model.backbone.pyramid is False
    head = model.decode_head
    assert (head.num_convs, head.concat_input, head.dropout_ratio) == (
        0,
        False,
        0.0,
    ) and "auxiliary_head" not in model


@pytest.mark.parametrize("name", TRANSFER)
def test_values_name_their_source(name: str) -> None:
    """A reader could not tell the literature's values from ours."""
    lines = (CONFIGS / name).read_text().splitlines()
    untagged = [
        line
        for line in lines
        if re.search(
            r"(lr=|weight_decay=|drop_path_rate=|layer_decay_rate=|LinearLR|PolyLR|MultiStepLR)", line
        )
        and not TAG.search(line)
    ]
    assert untagged == []

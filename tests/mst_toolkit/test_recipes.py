"""The two files of a run: what its ``config.py`` holds is what is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine.config import Config

from mst_toolkit import recipes
from mst_toolkit.plan import RunPlan
from mst_toolkit.training import with_options


def segmentation_plan() -> RunPlan:
    """A plan of 40 steps that validates every 3."""
    plan = RunPlan("segmentation", "UperNet", {"layout": "Cityscapes", "classes": ("road", "car")}, {})
    for key, value in dict(
        steps=40, batch_size=8, workers=2, warm_up=2, validate_every=3, learning_rate=3e-5
    ).items():
        plan.decide(key, value, "a test")
    return plan


def complete(**changed: Any) -> Config:
    """The part of a recipe that ``config.py`` reads or sets."""
    loader = dict(batch_size=8, num_workers=2, persistent_workers=True, dataset=dict(data_root="a/"))
    cfg = Config(
        dict(
            data_root="a/",
            train_dataloader=dict(loader),
            val_dataloader=dict(loader),
            test_dataloader=dict(loader),
            optim_wrapper=dict(optimizer=dict(lr=3e-5)),
            train_cfg=dict(max_iters=40, val_interval=3),
            default_hooks=dict(checkpoint=dict(interval=3)),
            model=dict(decode_head=dict(channels=512), auxiliary_head=dict(channels=256)),
        )
    )
    cfg.merge_from_dict(changed)
    return cfg


def test_options_of_values_that_the_config_sets_take_effect(tmp_path: Path) -> None:
    """``--cfg-options train_cfg.val_interval=40`` would be ignored: config.py, read after recipe.py, says 3."""
    options = {
        "train_cfg.val_interval": 40,
        "val_dataloader.num_workers": 0,
        "param_scheduler.1.power": 2.0,
        "model.decode_head.channels": 32,
    }
    cfg = complete(param_scheduler=[dict(type="LinearLR"), dict(type="PolyLR", power=2.0)])
    cfg.merge_from_dict({key: value for key, value in options.items() if "scheduler" not in key})
    written = Config.fromfile(recipes.write(segmentation_plan(), cfg, tmp_path, options, ()))
    assert written.train_cfg == dict(max_iters=40, val_interval=40)
    assert written.val_dataloader.num_workers == 0
    assert written.test_dataloader.num_workers == 2
    assert [step.get("power") for step in written.param_scheduler] == [None, 2.0]
    assert written.model.decode_head == dict(channels=32, num_classes=2)
    text = (tmp_path / "config.py").read_text()
    assert "train_cfg['val_interval'] = 40" in text and "channels'] = 32" not in text


def test_options_stand_among_the_decisions() -> None:
    """The report and config.py would give a learning rate and an interval that were not trained with."""
    asked: dict[str, Any] = {"cfg_options": ["train_cfg.val_interval=40"]}
    plan = segmentation_plan()
    cfg = with_options(plan, complete(), asked)
    assert cfg.train_cfg.val_interval == plan["train_cfg.val_interval"] == 40
    assert plan["validate_every"] == 3 and "overrule" in plan.why("train_cfg.val_interval")

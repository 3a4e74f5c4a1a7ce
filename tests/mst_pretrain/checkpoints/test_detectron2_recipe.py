"""The recipe for detectron2, which cannot be installed here: its own values, with stand-ins for detectron2's parts."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import pytest

RECIPE = Path(__file__).parents[3] / "configs/drop_in/mask-rcnn_swin-t_detectron2.py"


def test_recipe_has_the_values_of_the_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    """Schedule, decay, file name or outputs of the recipe would not be those of Swin's Mask R-CNN 1x."""
    for name in (
        "detectron2",
        "detectron2.config",
        "detectron2.modeling",
        "detectron2.solver",
        "fvcore",
        "fvcore.common",
        "fvcore.common.param_scheduler",
    ):
        monkeypatch.setitem(sys.modules, name, MagicMock(spec=ModuleType(name)))
    sys.modules["detectron2"].model_zoo = MagicMock()
    sys.modules["detectron2.config"].LazyCall = lambda kind: lambda **arguments: {"kind": kind, **arguments}
    for module, name in (("modeling", "SwinTransformer"), ("solver", "WarmupParamScheduler")):
        setattr(sys.modules[f"detectron2.{module}"], name, name)
    sys.modules["fvcore.common.param_scheduler"].MultiStepParamScheduler = "MultiStepParamScheduler"
    recipe: dict[str, Any] = runpy.run_path(str(RECIPE))
    swin = recipe["model"].backbone.bottom_up
    assert swin == {
        "kind": "SwinTransformer",
        "embed_dim": 96,
        "depths": [2, 2, 6, 2],
        "num_heads": [3, 6, 12, 24],
        "window_size": 7,
        "drop_path_rate": 0.1,
    }
    assert recipe["model"].backbone.in_features == ("p0", "p1", "p2", "p3")
    assert recipe["train"].init_checkpoint == "swin_t_detectron2.pth" and recipe["train"].max_iter == 90000
    schedule = recipe["lr_multiplier"]
    assert schedule["scheduler"]["milestones"] == [60000, 82500] and schedule["scheduler"]["values"] == [
        1,
        0.1,
        0.01,
    ]
    assert schedule["warmup_length"] * 90000 == pytest.approx(500) and schedule["warmup_factor"] == 0.001
    optimizer = recipe["optimizer"]
    assert (optimizer.lr, optimizer.weight_decay) == (1e-4, 0.05)
    assert optimizer.params.overrides == {
        "relative_position_bias_table": {"weight_decay": 0.0},
        "absolute_pos_embed": {"weight_decay": 0.0},
    }
    assert RECIPE.read_text().startswith(
        "# Run in detectron2 (commit 02b5c4e) by checks outside this repository"
    )

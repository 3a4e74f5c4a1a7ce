"""--auto-scale-lr: linear in the images of one optimizer step."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
from mmengine.optim import build_optim_wrapper
from torch import nn

from mst_pretrain.training import runner as engine
from mst_pretrain.training.runner import MSTRunner


class Parts(nn.Module):
    """A backbone and a head, as SETR's rates need them."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.head = nn.Linear(2, 2), nn.Linear(2, 2)


def scaled(
    monkeypatch: pytest.MonkeyPatch, batch: int, processes: int, accumulate: int, auto: dict[str, Any]
) -> list[float]:
    """Learning rates of backbone and head after scaling; 1e-4 and 1e-3 before."""
    monkeypatch.setattr(engine, "get_world_size", lambda: processes)
    wrapper = build_optim_wrapper(
        Parts(),
        {
            "optimizer": {"type": "AdamW", "lr": 1e-4},
            "accumulative_counts": accumulate,
            "paramwise_cfg": {"custom_keys": {"head": {"lr_mult": 10.0}}},
        },
    )
    runner: Any = SimpleNamespace(
        _train_dataloader={"batch_size": batch}, logger=logging.getLogger("test_scale_lr")
    )
    MSTRunner.scale_lr(runner, wrapper, auto)
    rates = sorted({group["lr"] for group in wrapper.optimizer.param_groups})
    assert wrapper.get_lr()["base_lr"] == [rates[0]]  # what the log prints
    return rates


@pytest.mark.parametrize(
    ("batch", "processes", "accumulate", "factor"),
    [
        (2, 8, 1, 1.0),  # 8 GPUs x 2 images: the recipe's 16
        (2, 1, 1, 1 / 8),  # 1 GPU x 2 images
        (2, 1, 8, 1.0),  # the same, accumulated to 16
        (4, 2, 1, 1 / 2),
        (4, 8, 2, 4.0),
    ],
)
def test_linear_in_the_images_of_a_step(
    monkeypatch: pytest.MonkeyPatch, batch: int, processes: int, accumulate: int, factor: float
) -> None:
    """One GPU would train at the rate of eight, or accumulated images not count; every group keeps its multiple."""
    rates = scaled(monkeypatch, batch, processes, accumulate, {"enable": True, "base_batch_size": 16})
    assert rates == pytest.approx([1e-4 * factor, 1e-3 * factor], rel=1e-12)


def test_off_it_only_warns(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """The rate would change unasked, or one GPU train at the rate of eight and nobody be told."""
    off = {"enable": False, "base_batch_size": 16}
    assert scaled(monkeypatch, 2, 1, 1, off) == pytest.approx([1e-4, 1e-3])
    assert "2 images per optimizer step" in caplog.text and "is for 16" in caplog.text
    caplog.clear()
    assert scaled(monkeypatch, 2, 8, 1, off) == pytest.approx([1e-4, 1e-3]) and caplog.text == ""
    assert scaled(monkeypatch, 2, 1, 1, {}) == pytest.approx([1e-4, 1e-3]) and caplog.text == ""

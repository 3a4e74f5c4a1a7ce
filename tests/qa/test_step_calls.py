"""How many calls of operators a pretraining step makes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from benchmarks.pretrain_step import CONFIG, by_kind, count_calls, step_of, trunks_alone
from mst_pretrain.runtime.config import load_config
from mst_pretrain.training.single_step import MSTStep

SMALL: dict[str, Any] = {
    "model.backbone": dict(
        name="vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=16, depth=2, num_heads=2
    ),
    "model.head.prototypes": 64,
    "model.decoder.width": 16,
    "train_dataloader.dataset.crops": dict(
        global_crops=[dict(size=32), dict(size=32, blur_probability=0.1, solarize_probability=0.2)],
        local_crop=dict(size=16),
        local_count=2,
    ),
}
# Counted on 2026-11-28. A step with twice as many calls waits twice as long for a GPU to be told what to do.
CALLS = {
    "colours and normalisation": 771,
    "masks, heads and losses": 112,
    "self-distillation loss": 78,
    "decoder": 20,
    "clipping and optimizer": 9,
    "teacher and center": 6,
    "other": 14,
}


@pytest.fixture
def step(one_thread: None) -> MSTStep:
    """Of a small model."""
    cfg = load_config(CONFIG)
    cfg.merge_from_dict(SMALL)
    return step_of(cfg, 2, torch.device("cpu"), "float32")


def test_calls_of_a_step_outside_the_trunks(step: MSTStep) -> None:
    """A loop over parameters or samples would be written into the step, and cost nothing on a CPU."""
    counted = count_calls(step)
    assert set(CALLS) < set(counted)
    grown = {part: counted[part] for part, count in CALLS.items() if counted[part] >= 2 * count}
    assert not grown, counted


def test_the_ceiling_is_the_trunks_and_nothing_else(step: MSTStep, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step would seem nearer to its ceiling than it is, or the ceiling leave out a backward or a teacher's pass."""
    monkeypatch.setattr(step.wrapper, "zero_grad", lambda: None)
    seen, forward = [], step.model.forward_trunk

    def watched(trunk: Any, images: torch.Tensor) -> Any:
        seen.append((trunk is step.model.teacher.backbone, torch.is_grad_enabled(), tuple(images.shape)))
        return forward(trunk, images)

    step.model.forward_trunk = watched
    trunks_alone(step)()
    crops = (4, 3, 32, 32), (4, 3, 16, 16)
    assert seen == [(True, False, crops[0]), (False, True, crops[0]), (False, True, crops[1])]
    with_gradient = {name for name, weight in step.model.named_parameters() if weight.grad is not None}
    trunk = {f"student.backbone.{name}" for name, _ in step.model.student.backbone.named_parameters()}
    assert with_gradient == trunk


def test_what_the_profiler_saw_is_counted_by_kind() -> None:
    """A launch of the driver, a wait or a slow copy would be missed, or a fast copy be counted."""
    counts = {
        "cudaLaunchKernel": 5,
        "cudaLaunchKernelExC": 2,
        "cuLaunchKernel": 3,
        "cudaStreamSynchronize": 1,
        "cudaEventSynchronize": 1,
        "Memcpy HtoD (Pageable -> Device)": 4,
        "Memcpy HtoD (Pinned -> Device)": 9,
        "Memcpy DtoD (Device -> Device)": 9,
        "aten::add": 9,
    }
    assert list(by_kind(counts).values()) == [10, 2, 4]

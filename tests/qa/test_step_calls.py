"""How many calls of operators a pretraining step makes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from benchmarks.pretrain_step import CONFIG, MSTStep, count_calls
from mst_pretrain.runtime.config import load_config

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


@pytest.mark.usefixtures("one_thread")
def test_calls_of_a_step_outside_the_trunks() -> None:
    """A loop over parameters or samples would be written into the step, and cost nothing on a CPU."""
    cfg = load_config(CONFIG)
    cfg.merge_from_dict(SMALL)
    counted = count_calls(MSTStep(cfg, 2, torch.device("cpu"), "float32"))
    assert set(CALLS) < set(counted)
    grown = {part: counted[part] for part, count in CALLS.items() if counted[part] >= 2 * count}
    assert not grown, counted

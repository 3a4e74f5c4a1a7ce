"""Step time and peak memory of the study's model with the decoder on and off, measured in turn."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from mmengine.registry import MODELS

import mst_pretrain  # noqa: F401  registers the model
from mst_pretrain.runtime.config import load_config
from mst_pretrain.runtime.environment import peak_memory
from mst_pretrain.training.optim import MSTOptimWrapperConstructor

ROUNDS, STEPS, WARM = 5, 4, 2


def measure(config: Path) -> dict[str, Any]:
    """Each variant ``ROUNDS`` times in a process of its own, on and off in turn.

    Returns:
        By ``decoder`` and ``no decoder``: median ``seconds`` of a step and median peak ``gib``; and ``time_ratio``,
        the median over rounds of the two times' ratio.
    """
    rounds: dict[str, list[dict[str, float]]] = {"decoder": [], "no decoder": []}
    for _ in range(ROUNDS):
        for name, results in rounds.items():
            command = [sys.executable, str(Path(__file__)), str(config), name]
            root = Path(__file__).parents[2]
            output = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout
            results.append(json.loads(output.splitlines()[-1]))
    ratios = [
        on["seconds"] / off["seconds"]
        for on, off in zip(rounds["decoder"], rounds["no decoder"], strict=True)
    ]
    summary: dict[str, Any] = {
        name: {key: statistics.median(r[key] for r in results) for key in ("seconds", "gib")}
        for name, results in rounds.items()
    }
    return summary | {"time_ratio": statistics.median(ratios), "rounds": ROUNDS}


def one_variant(config: Path, decoder: bool, batch: int | None = None) -> dict[str, float]:
    """Median step time in seconds and peak memory in GiB of this process, on random pixels.

    Args:
        config: Of the study.
        decoder: Whether the image is restored.
        batch: Images; None: the config's.
    """
    cfg = load_config(config)
    if not decoder:
        cfg.model.decoder = None
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = MODELS.build({**cfg.model, "data_preprocessor": None}).to(device).train()
    wrapper = MSTOptimWrapperConstructor(dict(cfg.optim_wrapper))(model)
    batch, crops = batch or cfg.train_dataloader.batch_size, cfg.train_dataloader.dataset.crops
    sides = crops.global_crops[0].size, crops.local_crop.size
    views = {
        "global_views": torch.randn(len(crops.global_crops), batch, 3, sides[0], sides[0], device=device),
        "local_views": torch.randn(crops.local_count, batch, 3, sides[1], sides[1], device=device),
        "seeds": torch.arange(batch, device=device),
    }
    seconds = []
    for _ in range(WARM + STEPS):
        start = time.perf_counter()
        with wrapper.optim_context(model):
            losses = model(**views)
        total, _ = model.parse_losses(losses)
        wrapper.update_params(total)
        model.update_teacher(0.99)
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return {"seconds": statistics.median(seconds[WARM:]), "gib": peak_memory()}


if __name__ == "__main__":
    print(json.dumps(one_variant(Path(sys.argv[1]), sys.argv[2] == "decoder")))

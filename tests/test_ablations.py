"""The ablation configs: one difference each from their base, and the masked counts they name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from mst_pretrain.method.masking import make_mask
from mst_pretrain.runtime.config import load_config

CONFIGS = Path(__file__).parents[1] / "configs"
BASE = CONFIGS / "pretrain/mst_deit-s_8xb64-100e_in1k.py"
MODE, RATIO, DECODER = "model.masking.mode", "model.masking.ratio", "model.decoder"
RANDOM, EQUAL = {MODE: "random", RATIO: 0.15}, {MODE: "random_equal_count"}
DIFFERENCES: dict[str, dict[str, Any]] = {
    "epochs_300": {"train_cfg.max_epochs": 300},
    "head_bn": {"model.head.norm": "bn"},
    "head_syncbn": {"model.head.norm": "syncbn"},
    "lambda_rec_0.6": {"model.lambda_rec": 0.6},
    "mask_guided_local": {"model.mask_local": True},
    "mask_guided_no_decoder": {DECODER: None},
    "mask_guided_num16": {"model.masking.num": 16},
    "mask_guided_num2": {"model.masking.num": 2},
    "mask_guided_num4": {"model.masking.num": 4},
    "mask_guided_p015": {"model.masking.prob": 0.15},
    "mask_guided_p100": {"model.masking.prob": 1.0},
    "mask_guided_unmasked_half": {"model.masking.unmasked_image_probability": 0.5},
    "mask_none": {MODE: "none"},
    "mask_none_no_decoder": {MODE: "none", DECODER: None},
    "mask_random": RANDOM,
    "mask_random_equal_count": EQUAL,
    "mask_random_equal_count_no_decoder": EQUAL | {DECODER: None},
    "mask_random_no_decoder": RANDOM | {DECODER: None},
    "mask_reversed": {MODE: "attention_reversed"},
    "mask_reversed_no_decoder": {MODE: "attention_reversed", DECODER: None},
}


def leaves(node: Any, name: str = "") -> dict[str, Any]:
    """Every value of a config by its dotted key."""
    if not isinstance(node, dict) or not node:
        return {name: node}
    return {
        k: v
        for key, value in node.items()
        for k, v in leaves(value, f"{name}.{key}" if name else key).items()
    }


def test_every_ablation_is_listed() -> None:
    """An ablation would be shipped that nobody compares with its base."""
    assert {path.name[:-3] for path in (CONFIGS / "ablation").glob("*.py")} == set(DIFFERENCES)


@pytest.mark.parametrize("name", DIFFERENCES)
def test_an_ablation_differs_in_nothing_else(name: str) -> None:
    """A comparison would measure another change than the one it names."""
    base = leaves(load_config(BASE)._cfg_dict.to_dict())
    got = leaves(load_config(CONFIGS / "ablation" / f"{name}.py")._cfg_dict.to_dict())
    changed = {
        key: got.get(key) for key in base.keys() | got.keys() if base.get(key, ...) != got.get(key, ...)
    }
    wanted = DIFFERENCES[name]
    if wanted.get(DECODER, ...) is None:
        assert changed.pop("model.decoder.width", ...) is None
        changed.setdefault(DECODER, got[DECODER])
    assert changed == wanted


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in DIFFERENCES
        if "tokens hidden" in (CONFIGS / "ablation" / f"{name}.py").read_text().splitlines()[0]
    ],
)
def test_the_masked_count_is_the_one_it_names(name: str) -> None:
    """The first line of a config would claim another number of hidden tokens than it hides."""
    path = CONFIGS / "ablation" / f"{name}.py"
    named = float(re.search(r"([\d.]+) of 196 tokens", path.read_text())[1])  # type: ignore[index]
    attention = torch.rand(4000, 14, 14, generator=torch.Generator().manual_seed(0))
    mask = make_mask(attention=attention, seeds=torch.arange(4000), **load_config(path).model.masking)
    assert mask is not None
    assert mask.flatten(1).sum(1).float().mean().item() == pytest.approx(named, rel=0.03)

"""What the mask study compares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

MIN_HIDDEN = 4  # tokens; an arm that hides fewer is no comparison
# 25 % of the tokens, hidden always: the share at which guided, random and reversed masking are compared.
QUARTER = {"num": 4, "prob": 1.0}
MASKS: dict[str, dict[str, Any]] = {
    "none": {"mode": "none"},
    "random 15 %": {"mode": "random", "ratio": 0.15},
    "random 25 %, equal count": {"mode": "random_equal_count", **QUARTER},
    "guided num 8 p 0.15": {"mode": "attention", "num": 8, "prob": 0.15},
    "guided num 8 p 0.5": {"mode": "attention", "num": 8, "prob": 0.5},
    "guided num 8 p 1": {"mode": "attention", "num": 8, "prob": 1.0},
    "guided 25 %": {"mode": "attention", **QUARTER},
    "reversed 25 %": {"mode": "attention_reversed", **QUARTER},
}


@dataclass(frozen=True)
class Arm:
    """One way to pretrain.

    Attributes:
        mask: Key of ``MASKS``.
        decoder: Whether the image is restored.
    """

    mask: str
    decoder: bool

    @property
    def name(self) -> str:
        """For tables."""
        if self.mask == "none" and not self.decoder:
            return "DINO"
        return f"{self.mask}{'' if self.decoder else ', no decoder'}"

    @property
    def folder(self) -> str:
        """For files."""
        return self.name.lower().replace(" %", "").replace(",", "").replace(" ", "_")

    def hidden(self, tokens: int) -> float:
        """Tokens hidden per view on average, of so many."""
        masking = MASKS[self.mask]
        if masking["mode"] == "none":
            return 0.0
        if masking["mode"] == "random":
            return float(int(masking["ratio"] * tokens))
        return tokens // masking["num"] * masking["prob"]

    def comparable(self, tokens: int) -> bool:
        """Whether the arm hides enough, or is meant to hide nothing."""
        return MASKS[self.mask]["mode"] == "none" or self.hidden(tokens) >= MIN_HIDDEN

    def options(self) -> dict[str, Any]:
        """Its difference from the study's config, as dotted keys."""
        return {"model.masking": MASKS[self.mask]} | ({} if self.decoder else {"model.decoder": None})

    def cfg_options(self) -> list[str]:
        """The same as ``--cfg-options`` takes them, one scalar each."""
        pairs: list[str] = []
        for key, value in self.options().items():
            if isinstance(value, dict):
                pairs += [f"+{key}.{name}={item}" for name, item in value.items()]
            else:
                pairs.append(f"{key}={value}")
        return pairs


ALL = [Arm(mask, decoder) for mask in MASKS for decoder in (True, False)]
DINO, MST = Arm("none", False), Arm("guided 25 %", True)
CPU = [
    DINO,
    MST,
    Arm("random 25 %, equal count", True),
    Arm("guided 25 %", False),
]

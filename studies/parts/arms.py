"""What the mask study compares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

NUM = 4  # of 4 tokens one is hidden, always: the share at which guided and random masking are compared


@dataclass(frozen=True)
class Arm:
    """One way to pretrain.

    Attributes:
        name: For tables.
        mode: Of the mask.
        decoder: Whether the image is restored.
    """

    name: str
    mode: str
    decoder: bool

    @property
    def folder(self) -> str:
        """For files."""
        return self.name.lower().replace(" %", "").replace(",", "").replace(" ", "_")

    @property
    def masking(self) -> dict[str, Any]:
        """The study's ``model.masking``."""
        return {"mode": self.mode} if self.mode == "none" else {"mode": self.mode, "num": NUM, "prob": 1.0}

    def hidden(self, tokens: int) -> int:
        """Tokens hidden per view, of so many."""
        return 0 if self.mode == "none" else tokens // NUM

    def cfg_options(self) -> list[str]:
        """Its difference from the study's config, as ``--cfg-options`` takes it."""
        options = [f"+model.masking.{key}={value}" for key, value in self.masking.items()]
        return options if self.decoder else [*options, "model.decoder=None"]


DINO, MST = Arm("DINO", "none", False), Arm("guided 25 %", "attention", True)
DECODER = Arm("decoder alone", "none", True)
RANDOM = Arm("random 25 %, equal count", "random_equal_count", True)
ARMS = [DINO, MST, RANDOM, Arm("guided 25 %, no decoder", "attention", False)]
GPU_ARMS = [DINO, DECODER, MST, RANDOM]

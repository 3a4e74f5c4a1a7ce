"""The arms of the demonstration measured side by side: one table for one seed of scenes and labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mst_pretrain.checkpoints.backbone import read_backbone
from mst_pretrain.method.backbones import Trunk, build_trunk

from .drawn import Scenes, draw
from .paired import difference, mean_iou
from .readouts import LABELLED, TRIVIAL, FeatureArm, network_features, read_out
from .ridge import RIDGE, WEAK_RIDGE, LinearHead

VAL = 200  # validation scenes
RANDOM = "random start"
LIVE = "live run"
SHIPPED = "shipped checkpoint"
MODEL = "vit_tiny_patch16_224"
MODEL_ARGS: dict[str, Any] = dict(img_size=64, patch_size=8, embed_dim=192, depth=4, num_heads=3)


@dataclass
class MeasuredArms:
    """What was measured with one seed.

    Attributes:
        heads: By arm and number of labelled scenes.
        confusions: int64 [val scenes, C, C], likewise.
        weak: The same with :data:`WEAK_RIDGE`; empty where it was not asked for.
    """

    heads: dict[str, dict[int, LinearHead]] = field(default_factory=dict)
    confusions: dict[str, dict[int, np.ndarray]] = field(default_factory=dict)
    weak: dict[str, dict[int, np.ndarray]] = field(default_factory=dict)

    def scores(self, weak: bool = False) -> dict[str, dict[str, float]]:
        """mIoU in per cent by arm and number of labelled scenes."""
        return {
            arm: {str(count): round(float(mean_iou(found.sum(0))), 2) for count, found in counts.items()}
            for arm, counts in (self.weak if weak else self.confusions).items()
        }

    def gains(self, over: str = RANDOM) -> dict[str, dict[str, dict[str, float]]]:
        """What each network has more than ``over``: value and 95 % interval, in points."""
        gains: dict[str, dict[str, dict[str, float]]] = {}
        for arm in (LIVE, SHIPPED):
            if arm in self.confusions:
                gains[arm] = {}
                for count, found in self.confusions[arm].items():
                    gain = difference(self.confusions[over][count], found)
                    values = {"value": gain.value, "low": gain.low, "high": gain.high}
                    gains[arm][str(count)] = {key: round(value, 2) for key, value in values.items()}
        return gains


def random_trunk(seed: int) -> Trunk:
    """The network before any training."""
    torch.manual_seed(seed)
    return build_trunk(MODEL, **MODEL_ARGS)


def pretrained_trunk(path: Path) -> Trunk:
    """The network of a checkpoint, every weight or a UserError."""
    backbone = read_backbone(path)
    trunk = build_trunk(backbone.architecture.name, **backbone.architecture.arguments)
    trunk.load_state_dict(backbone.state)
    return trunk


def network_arm(title: str, trunk: Trunk, device: torch.device | str = "cpu") -> FeatureArm:
    """The arm of a network, which is put on the device."""
    return FeatureArm(title, network_features(trunk.to(device).eval()))


def arms_of(
    seed: int, live: Path | None, shipped: Path | None, device: torch.device | str = "cpu"
) -> list[FeatureArm]:
    """All arms in the order of the table: the two trivial ones, the random start, and what has a checkpoint."""
    arms = [FeatureArm(title, describe) for title, describe in TRIVIAL.items()]
    arms.append(network_arm(RANDOM, random_trunk(seed), device))
    for title, path in ((LIVE, live), (SHIPPED, shipped)):
        if path is not None:
            arms.append(network_arm(title, pretrained_trunk(path), device))
    return arms


def measure(
    arms: Iterable[FeatureArm],
    labelled: Scenes,
    val: Scenes,
    counts: Iterable[int] = LABELLED,
    device: torch.device | str = "cpu",
    done: Callable[[int], None] = lambda scenes: None,
    weak: bool = False,
) -> MeasuredArms:
    """Read every arm out on the same scenes.

    Args:
        arms: From :func:`arms_of`.
        labelled: At least as many as the largest count.
        val: Scenes that no head has seen.
        counts: Numbers of labelled scenes.
        device: Of the networks.
        done: Told the number of scenes just finished, labelled or not, of any arm.
        weak: Also with :data:`WEAK_RIDGE`.
    """
    measured = MeasuredArms()
    for arm in arms:
        ridges = (RIDGE, WEAK_RIDGE) if weak else (RIDGE,)
        found, *more = read_out(arm, labelled, val, counts, device, done, ridges)
        measured.heads[arm.title], measured.confusions[arm.title] = found.heads, found.confusions
        if more:
            measured.weak[arm.title] = more[0].confusions
    return measured


def draw_for_readout(seed: int, counts: Iterable[int] = LABELLED, val: int = VAL) -> tuple[Scenes, Scenes]:
    """The labelled and the validation scenes of a seed."""
    return draw(seed, "labelled", max(counts)), draw(seed, "val", val)

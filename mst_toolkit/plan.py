"""A plan: facts about data, start and machine become a list of decisions, each with its reason.

Nothing is decided anywhere else. The list is printed, written into ``config.py`` as comments and into ``plan.json``,
and shown in the report.
"""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

SMALL = 50_000  # images below which the recipe for small data is taken
DETECTION_BATCH, SEGMENTATION_BATCH = 16, 8  # images of a step of the published recipes
VALIDATIONS = 15
VALIDATION_SHARE, FORWARD = 0.1, 3  # most of a comparison's time; a training step costs three forward passes
WARM_UP_SHARE = 0.05


@dataclass(frozen=True)
class Decision:
    """One value of a plan, and why it was chosen."""

    key: str
    value: Any
    why: str


@dataclass
class RunPlan:
    """What a run will do.

    Attributes:
        task: ``pretrain``, ``detection`` or ``segmentation``.
        title: For people: ``Faster R-CNN, ViT-S/16``.
        data: As ``plan.json`` has it.
        start: As ``plan.json`` has it.
        decisions: In the order in which they are printed.
    """

    task: str
    title: str
    data: dict[str, Any]
    start: dict[str, Any]
    seed: int = 0
    decisions: list[Decision] = field(default_factory=list)

    def decide(self, key: str, value: Any, why: str) -> Any:
        """Add a decision, and return its value."""
        self.decisions.append(Decision(key, value, why))
        return value

    def __getitem__(self, key: str) -> Any:
        return next(decision.value for decision in self.decisions if decision.key == key)

    def why(self, key: str) -> str:
        """The reason of a decision."""
        return next(decision.why for decision in self.decisions if decision.key == key)

    def lines(self) -> Iterator[str]:
        """As it is printed: one line a decision."""
        yield f"Plan    {self.title}"
        for decision in self.decisions:
            yield f"        {decision.key:14} {shown(decision.value):>12}   {decision.why}"

    def record(self, created: str) -> dict[str, Any]:
        """What ``plan.json`` holds."""
        return {
            "task": self.task,
            "title": self.title,
            "command": shlex.join(["mst", *sys.argv[1:]])
            if sys.argv[0].endswith(("mst", "cli.py"))
            else "Python",
            "decisions": [vars(decision) for decision in self.decisions],
            "data": self.data,
            "start": self.start,
            "seed": self.seed,
            "created": created,
        }


def shown(value: Any) -> str:
    """A value for people: numbers with commas, learning rates in powers of ten."""
    if isinstance(value, bool) or value is None:
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.1e}" if 0 < abs(value) < 0.01 else f"{value:g}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " x ".join(str(item) for item in value)
    return str(value)


def detection_steps(images: int, batch: int) -> int:
    """Steps of ``batch`` images: 1,500 (N/100)^0.5755 steps of 16, which is COCO's 12 epochs at its 118,287 images."""
    return max(1, round(1500 * (images / 100) ** 0.5755 * DETECTION_BATCH / batch))


def segmentation_steps(images: int, batch: int) -> int:
    """Steps of ``batch`` images: 4,000 (N/100)^0.6787 steps of 8, which is Cityscapes' 40,000 at its 2,975 images."""
    return max(1, round(4000 * (images / 100) ** 0.6787 * SEGMENTATION_BATCH / batch))


def decide_steps(
    plan: RunPlan,
    images: int,
    batch: int,
    formula: tuple[int, str],
    steps: int | None,
    epochs: float | None,
    hours: tuple[int, str] | None = None,
) -> int:
    """The length of a run, from what was asked for or else from the size of the data.

    Args:
        plan: Gets the decision.
        images: Of the training.
        batch: Images of a step, all processes.
        formula: Steps where nothing was asked for, and why.
        steps: Asked for.
        epochs: Asked for.
        hours: Steps that fit into the hours asked for, and why.
    """
    if steps is not None:
        return plan.decide("steps", steps, "--steps")
    if epochs is not None:
        count = max(1, round(epochs * images / batch))
        return plan.decide("steps", count, f"--epochs {epochs:g} of {images:,} images, {batch} a step")
    if hours is not None:
        return plan.decide("steps", *hours)
    return plan.decide("steps", *formula)


def warm_up(steps: int, recipe: int) -> int:
    """Steps of warm-up: the recipe's, at most 5 % of the run, and at least 2 so that the rate rises."""
    return max(2, min(recipe, math.floor(WARM_UP_SHARE * steps)))


def validation_interval(steps: int, validations: int = VALIDATIONS) -> int:
    """Steps between validations, so that there are about this many."""
    return max(1, math.ceil(steps / validations))


def validations_of_comparison(steps: int, batch: int, images: int) -> tuple[int, str]:
    """How often each training of a comparison validates, and why: about a tenth of its time at most, 15 times at most.

    An image is taken to cost a third of its training when it is scored, without a backward pass.

    Args:
        steps: Of the training.
        batch: Images of a step, all processes.
        images: Of the validation.
    """
    affordable = math.floor(VALIDATION_SHARE * FORWARD * steps * batch / max(1, images))
    count = max(1, min(VALIDATIONS, affordable))
    if count == VALIDATIONS:
        return count, f"about {VALIDATIONS} validations, the best is kept"
    return count, (
        f"about {count} validations: with {VALIDATIONS} on {images:,} images they would take more than a tenth of the "
        "training"
    )


def scaled_rate(rate: float, batch: int, base: int) -> float:
    """The learning rate of Adam for another batch: times the square root of their ratio."""
    return rate * math.sqrt(batch / base)


def check_lengths(**given: float | None) -> None:
    """Refuse two lengths at once, and lengths that are not positive.

    Raises:
        UserError: See above.
    """
    from mst_pretrain.runtime.errors import UserError

    named = {name: value for name, value in given.items() if value is not None}
    if len(named) > 1:
        raise UserError(f"--{' and --'.join(named)} both give the length of the run. Give one of them.")
    for name, value in named.items():
        if not 0 < value < math.inf:
            raise UserError(f"--{name} {value:g}: give a number above 0.")

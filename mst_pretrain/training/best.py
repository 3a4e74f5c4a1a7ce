"""Which validation of a run is the best, by one score."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ..runtime.errors import UserError
from .lines import COCO, scores_of

MAIN = ("mask AP", "AP", "mIoU")  # the first that a validation has; else its first score
AUTO = (None, "auto")
RULES = ("greater", "less")


class Best:
    """Compares the scores of validations, also with those of a run that is resumed.

    Args:
        wanted: The score's name as MMEngine (``coco/bbox_mAP``) or a line (``AP``) has it; None or ``auto``: the main
            one.
        rule: ``greater`` or ``less`` is better; None: less of what has "loss" in its name.

    Attributes:
        name: The score that decides, once there is one.
        step, value: Of the best validation.

    Raises:
        UserError: Not one name, or another rule.
    """

    def __init__(self, wanted: str | None, rule: str | None) -> None:
        if not (wanted is None or isinstance(wanted, str)):
            raise UserError(
                f"default_hooks.checkpoint.save_best is {wanted!r}. A run folder has one best checkpoint: "
                "name one score."
            )
        if rule not in (None, *RULES):
            raise UserError(
                f"default_hooks.checkpoint.rule is {rule!r}. Set it to 'greater' or 'less', or leave it out."
            )
        self.wanted, self.rule = wanted, rule
        self.start([])

    def start(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Begin with the validations that ``metrics.jsonl`` has."""
        self.name, self.step, self.value, self.last = "", 0, 0.0, -1
        for line in lines:
            scores = {
                name: float(value)
                for name, value in line.items()
                if isinstance(value, float) and name not in ("time", "epoch")
            }
            main = str(line.get("main"))
            self.improves(line["step"], scores, main=main if main in scores else "")

    def improves(
        self, step: int, scores: Mapping[str, float], metrics: Collection[str] = (), main: str = ""
    ) -> bool:
        """Whether these scores are the best so far; then they are from now on.

        Args:
            step: Finished iterations.
            scores: By the names of a line.
            metrics: MMEngine's names of the validation's scores.
            main: The score that decides from now on, where none was named: with another one comparing begins anew.

        Raises:
            UserError: The score that was named is not among them.
        """
        self.last = step
        if self.wanted in AUTO and main and main != self.name:
            self.name, self.step = main, 0
        self.name = self.name or self._choose(scores, metrics)
        value = scores.get(self.name)
        if value is None:
            return False
        less = self.rule == "less" or (self.rule is None and "loss" in self.name)
        better = self.step == 0 or (value < self.value if less else value > self.value)
        if better:
            self.step, self.value = step, value
        return better

    def _choose(self, scores: Mapping[str, float], metrics: Collection[str]) -> str:
        if self.wanted in AUTO:
            return next((name for name in MAIN if name in scores), next(iter(scores), ""))
        absent = metrics and COCO.match(str(self.wanted)) and self.wanted not in metrics
        names = [] if absent else [str(self.wanted), *_short(str(self.wanted), scores)]
        found = next((name for name in names if name in scores), None)
        if found is None:
            raise UserError(
                f"default_hooks.checkpoint.save_best is '{self.wanted}', and the validation gives "
                f"{', '.join(scores) or 'no score'}. Set it to one of these, or leave it out."
            )
        return found

    def words(self) -> str:
        """``best``, or which validation is."""
        if not self.step:
            return ""
        return "best" if self.step == self.last else f"best {self.value:.1f} at step {self.step:,}"


def _short(wanted: str, scores: Mapping[str, float]) -> list[str]:
    """The names that a line may have for a score of MMEngine's name."""
    if COCO.match(wanted) is None:
        return [wanted.rpartition("/")[2]]
    both = {"coco/bbox_mAP": 0.0, "coco/segm_mAP": 0.0, wanted: 0.0}
    alone = {wanted: 0.0}
    several = any(name.startswith(("box ", "mask ")) for name in scores)
    names = scores_of(both if several else alone)
    part = "mask " if "segm" in wanted else "box "
    return [name for name in names if not several or name.startswith(part)][-1:]

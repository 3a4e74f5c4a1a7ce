"""Where a run's files lie: as MMEngine names them, or in one tidy folder (``run_folder = True`` in the config)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import UserError

SWITCH, LOGGERS, EVALUATION = "run_folder", "loggers", "evaluation"  # keys of a config
CHECKPOINTS = "checkpoints"
LAST, BEST, FIRST = "last.pth", "best.pth", "initial.pth"
LOG, METRICS, CONFIG = "train.log", "metrics.jsonl", "config.py"
EVALUATIONS = "evaluations.jsonl"  # of a pretraining that has no run folder
LATEST = "latest.pth"  # what MMEngine's layout has in the place of checkpoints/last.pth


@dataclass(frozen=True)
class RunFiles:
    """The files of one run.

    Attributes:
        root: The work directory.
        tidy: Whether it is a run folder: ``train.log``, ``metrics.jsonl`` and ``checkpoints/`` with ``last.pth``,
            ``best.pth`` and ``initial.pth``. Otherwise checkpoints lie in the work directory itself, the newest one is
            ``latest.pth`` too, and logs are in a folder named after the time of the start.
    """

    root: Path
    tidy: bool = False

    @classmethod
    def of(cls, cfg: Mapping[str, Any], root: str | Path) -> RunFiles:
        """Those of a config.

        Raises:
            UserError: ``run_folder`` is neither True nor False.
        """
        switch = cfg.get(SWITCH, False)
        if not isinstance(switch, bool):
            raise UserError(f"{SWITCH} is {switch!r}. Set it to True or False.")
        return cls(Path(root), switch)

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints, in which a pretraining keeps the list of its images too."""
        return self.root / CHECKPOINTS if self.tidy else self.root

    @property
    def latest(self) -> Path:
        """The checkpoint that ``--resume`` continues from."""
        return self.checkpoints / (LAST if self.tidy else LATEST)

    @property
    def initial(self) -> Path:
        """The weights before training."""
        return self.checkpoints / FIRST

    @property
    def log(self) -> Path:
        """The text log of a run folder."""
        return self.root / LOG

    @property
    def evaluations(self) -> Path:
        """The scores of a pretraining while it runs: among the numbers of a run folder, or in a file of their own."""
        return self.metrics if self.tidy else self.root / EVALUATIONS

    @property
    def metrics(self) -> Path:
        """The numbers of a run folder, one JSON object a line."""
        return self.root / METRICS

    def checkpoint(self, folder: str | Path, name: str) -> Path:
        """Where a checkpoint goes that is to be written as ``name`` into ``folder``."""
        if not self.tidy:
            return Path(folder, name)
        return self.checkpoints / (name if name in (FIRST, BEST) else LAST)


def newest_checkpoint(root: str | Path, tidy: bool = False) -> Path:
    """The file that ``--resume`` continues from: of the two layouts' the one that was written last.

    A run may change its layout when it is resumed. Where there is none yet: the name that it will have.
    """
    places = [RunFiles(Path(root), layout).latest for layout in (tidy, not tidy)]
    there = [place for place in places if place.is_file()]
    return max(there, key=lambda place: place.stat().st_mtime) if there else places[0]


def run_of(checkpoint: str | Path) -> Path:
    """The folder of the run that a checkpoint belongs to."""
    folder = Path(checkpoint).parent
    return folder.parent if folder.name == CHECKPOINTS else folder

"""A run's folder: its config, its checkpoints, and the calls that only read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mst_pretrain.runtime.errors import UserError
from mst_pretrain.runtime.json_text import read_json

CONFIG, PLAN, METRICS, CHECKPOINTS = "config.py", "plan.json", "metrics.json", "checkpoints"
LAST, BEST = "last.pth", "best.pth"


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run.

    Attributes:
        folder: Of the run.
        plan: Its ``plan.json``.
    """

    folder: Path
    plan: dict[str, Any]

    @property
    def config(self) -> Path:
        """The user's config."""
        return self.folder / CONFIG

    @property
    def task(self) -> str:
        """``pretrain``, ``detection`` or ``segmentation``."""
        return str(self.plan["task"])

    def checkpoint(self) -> Path:
        """The best weights, or the last where none was validated.

        Raises:
            UserError: There are none yet.
        """
        for name in (BEST, LAST):
            if (self.folder / CHECKPOINTS / name).is_file():
                return self.folder / CHECKPOINTS / name
        raise UserError(
            f"{self.folder} has no checkpoint yet. Wait for its first, or continue it: --out {self.folder} --resume"
        )


def open_run(folder: str | Path) -> RunFolder:
    """The run in a folder.

    Raises:
        UserError: It is not a run's folder.
    """
    folder = Path(folder)
    if not (folder / PLAN).is_file() or not (folder / CONFIG).is_file():
        there = "is not there" if not folder.exists() else f"has no {PLAN} and {CONFIG}"
        raise UserError(
            f"{folder} {there}: give the folder of a run of mst pretrain or mst finetune, such as runs/photos_vit-s. "
            "Runs of mst train are scored with: mst test CONFIG CHECKPOINT"
        )
    return RunFolder(folder, read_json(folder / PLAN))


def fine_tuned(folder: str | Path) -> RunFolder:
    """The fine-tuning in a folder.

    Raises:
        UserError: It is not a run's folder, or a pretraining's.
    """
    run = open_run(folder)
    if run.task == "pretrain":
        raise UserError(
            f"{folder} is a pretraining: it has no classes to predict. Fine-tune it: mst finetune detection DATA "
            f"--init {folder}; or measure its features: mst probe knn {folder} DATA"
        )
    return run


def predict(
    run: str | Path,
    images: Sequence[str | Path],
    out: str | Path,
    checkpoint: str | Path | None,
    score_thr: float,
    batch_size: int,
    precision: str,
    device: str | None,
) -> Path:
    """See :func:`mst_toolkit.api.predict`."""
    found = fine_tuned(run)
    from mst_pretrain.runtime.config import load_config
    from mst_transfer.evaluation.output import fresh_folder
    from mst_transfer.prediction.files import INDEX, PredictionFiles, find_images
    from mst_transfer.prediction.predictor import Predictor

    if isinstance(images, str | Path):
        images = [images]
    if not 0 <= score_thr <= 1:
        raise UserError(f"--score-thr {score_thr}: give a number from 0 to 1.")
    weights = Path(checkpoint) if checkpoint else found.checkpoint()
    names = [str(image) for image in images]
    paths = find_images(names)
    fresh_folder(str(out), names)
    from .training import quiet

    with quiet():
        predictor = Predictor(load_config(found.config), str(weights), device, False, None, precision)
    files = PredictionFiles(predictor, str(out), None, score_thr, batch_size)
    settings = {"config": str(found.config), "checkpoint": str(weights), "precision": predictor.precision}
    index = files.run(paths, settings)
    print(f"{len(index['images'])} of {len(paths)} images predicted: {Path(out, INDEX)}", flush=True)
    if index["failed"]:
        print(
            f"{len(index['failed'])} could not be read; they are named under 'failed' in that file.",
            flush=True,
        )
    return Path(out)


def probe(kind: str, run: str | Path, data: str | Path, out: str | Path | None, seed: int) -> dict[str, Any]:
    """See :func:`mst_toolkit.api.probe`."""
    from .probing import probe as measure
    from .starts import RANDOM, find_start

    start = find_start(run)
    backbone = None if start.kind == RANDOM else start.path
    default = (
        Path(run) / f"probe_{kind}" if Path(run).is_dir() else Path("runs") / f"probe_{kind}_{Path(run).stem}"
    )
    folder = Path(out) if out else default
    folder.mkdir(parents=True, exist_ok=True)
    return measure(kind, backbone, Path(data), folder, seed=seed)

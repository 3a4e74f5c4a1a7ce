"""The random start that was measured like a run: same data, same labels, same steps; by ``mst compare``, or by hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mst_pretrain.runtime.errors import UserError

from .reported_run import ReportedRun, number, read_object, read_run

RANDOM = "random"


def random_start_of(run: ReportedRun) -> ReportedRun | None:
    """The fine-tuning from random weights that a run can be compared with, or None where none was measured."""
    if run.task == "pretrain" or not run.metrics or _kind(run.plan) == RANDOM:
        return None
    for folder in _candidates(run.folder.resolve()):
        plan, metrics = read_object(folder / "plan.json"), read_object(folder / "metrics.json")
        if _kind(plan) == RANDOM and metrics.get("data") and _alike(run, plan, metrics):
            return read_run(folder)
    return None


def random_probe(run: ReportedRun, kind: str) -> float | None:
    """Main score of ``mst probe KIND random`` on the images of a pretraining's probe, in per cent."""
    wanted = run.probes.get(kind, {}).get("data")
    for folder in (run.folder.resolve().parent, Path("runs")):
        try:
            found = read_object(folder / f"probe_{kind}_random" / "metrics.json")
        except UserError:
            continue
        if wanted and found.get("data") == wanted:
            return number((found.get("main") or {}).get("value"))
    return None


def main_of(run: ReportedRun | None) -> float | None:
    """The main score, or None."""
    return None if run is None else number((run.metrics.get("main") or {}).get("value"))


def _candidates(folder: Path) -> Iterator[Path]:
    """Where ``mst compare`` has it, then the folders beside the run's."""
    yield folder.parent.parent / RANDOM / folder.name
    if folder.parent.is_dir():
        yield from (path for path in sorted(folder.parent.iterdir()) if (path / "metrics.json").is_file())


def _kind(plan: dict[str, Any]) -> Any:
    return (plan.get("start") or {}).get("kind")


def _alike(run: ReportedRun, plan: dict[str, Any], metrics: dict[str, Any]) -> bool:
    """Whether scores may stand side by side: the images scored, the labels and the length are the same."""

    def telling(one: dict[str, Any]) -> tuple[Any, ...]:
        data = one.get("data") or {}
        steps = {entry.get("key"): entry.get("value") for entry in one.get("decisions") or ()}
        return data.get("root"), data.get("train"), steps.get("steps"), steps.get("batch_size")

    same = (metrics.get("task"), metrics.get("data")) == (run.metrics.get("task"), run.metrics.get("data"))
    return same and telling(plan) == telling(run.plan)

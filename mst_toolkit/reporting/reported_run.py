"""What a run's folder holds, read once: plan, record, scores, curves, and where config and checkpoints lie."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mst_pretrain.runtime.errors import UserError
from mst_pretrain.runtime.json_text import parse_json

TASKS = ("pretrain", "detection", "segmentation")
SCOPES = {"mmdet": "detection", "mmseg": "segmentation", "mmengine": "pretrain"}
CHECKPOINTS = ("best", "last", "initial")
PROBES = ("segmentation", "linear", "knn")  # of a pretraining, the most telling first
TOLD_BY = ("plan.json", "metrics.jsonl", "metrics.json")


@dataclass(frozen=True)
class ReportedRun:
    """One run folder; a file that is not there gives an empty value.

    Attributes:
        folder: The run folder.
        task: ``pretrain``, ``detection`` or ``segmentation``.
        plan: Of ``plan.json``.
        record: Of ``run.json``.
        metrics: Of ``metrics.json``; scores in per cent. A pretraining without one has those of its first probe.
        training: The ``train`` lines of ``metrics.jsonl``, by rising step.
        validations: Its ``eval`` lines, scores in per cent.
        per_image: The arrays of ``per_image.npz``.
        probes: Of ``probe_KIND/metrics.json``, by kind.
    """

    folder: Path
    task: str
    plan: dict[str, Any] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    training: list[dict[str, Any]] = field(default_factory=list)
    validations: list[dict[str, Any]] = field(default_factory=list)
    per_image: dict[str, np.ndarray] = field(default_factory=dict)
    probes: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.folder.resolve().name

    @property
    def title(self) -> str:
        """The plan's title, else the folder's name."""
        return str(self.plan.get("title") or self.name)

    @property
    def config(self) -> Path | None:
        """``config.py``, or None."""
        path = self.folder / "config.py"
        return path if path.is_file() else None

    @property
    def checkpoints(self) -> dict[str, Path]:
        """Those that are there, by ``best``, ``last`` and ``initial``, the one to use first."""
        paths = {name: self.folder / "checkpoints" / f"{name}.pth" for name in CHECKPOINTS}
        return {name: path for name, path in paths.items() if path.is_file()}

    @property
    def checkpoint(self) -> Path | None:
        """The trained checkpoint to use: the best one, else the last one; never the initial one."""
        return next((path for name, path in self.checkpoints.items() if name != "initial"), None)

    @property
    def steps(self) -> tuple[int, int | None]:
        """The last recorded step, and how many were planned (None: not recorded)."""
        done = max((int(line["step"]) for line in [*self.training, *self.validations]), default=0)
        totals = [int(line["total"]) for line in self.training if line.get("total")]
        return done, totals[-1] if totals else None

    @cached_property
    def settings(self) -> Any:
        """The config, read by MMEngine.

        Raises:
            UserError: There is none, or it cannot be read.
        """
        from mst_pretrain.runtime.config import load_config

        if self.config is None:
            raise UserError(f"{self.folder} has no config.py")
        return load_config(self.config)


def read_run(folder: Path) -> ReportedRun:
    """Read a run folder.

    Raises:
        UserError: It does not exist, is not a run's folder, or one of its files is damaged.
    """
    if not folder.is_dir():
        raise UserError(f"there is no run folder {folder}. Give one: mst report runs/YOUR_RUN")
    if not any((folder / name).is_file() for name in TOLD_BY):
        raise UserError(
            f"{folder} is not a run folder: it has none of {', '.join(TOLD_BY)}. Give the folder that mst pretrain or "
            "mst finetune wrote: mst report runs/YOUR_RUN"
        )
    plan, record, metrics = (read_object(folder / name) for name in ("plan.json", "run.json", "metrics.json"))
    lines, task = read_lines(folder / "metrics.jsonl"), _task(folder, plan, metrics)
    probes = {kind: read_object(folder / f"probe_{kind}/metrics.json") for kind in PROBES}
    probes = {kind: probe for kind, probe in probes.items() if probe}
    scored = folder
    if task == "pretrain" and not metrics and probes:
        kind, metrics = next(iter(probes.items()))
        scored = folder / f"probe_{kind}"
    return ReportedRun(
        folder,
        task,
        plan,
        record,
        metrics,
        [line for line in lines if line.get("stage") != "eval"],
        [line for line in lines if line.get("stage") == "eval"],
        read_arrays(scored / "per_image.npz"),
        probes,
    )


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object, empty where there is no file.

    Raises:
        UserError: It is not one.
    """
    if not path.is_file():
        return {}
    try:
        content = parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(content, dict):
        raise _damaged(path, "it is not a JSON object")
    return content


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of ``metrics.jsonl``; a last line that a killed run left half written does not count.

    Raises:
        UserError: Another line is not an object with a step.
    """
    if not path.is_file():
        return []
    found: list[dict[str, Any]] = []
    text = path.read_text(encoding="utf-8", errors="replace")
    lines = text.split("\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entry = parse_json(line)
            entry["step"] = int(entry["step"])
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            if number == len(lines):  # without a line end: it was being written
                break
            raise _damaged(path, f"line {number}: {error!r}") from error
        found.append(entry)
    return found


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an ``.npz``, empty where there is no file; objects in it are refused.

    Raises:
        UserError: It cannot be read.
    """
    if not path.is_file():
        return {}
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except Exception as error:  # zipfile, zlib and numpy each have their own
        raise _damaged(path, str(error)) from error


def number(value: Any) -> float | None:
    """A finite number, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _task(folder: Path, plan: dict[str, Any], metrics: dict[str, Any]) -> str:
    for told in (plan.get("task"), metrics.get("task")):
        if told in TASKS:
            return str(told)
    config = folder / "config.py"
    if config.is_file():
        from mst_pretrain.runtime.config import load_config

        scope = load_config(config).get("default_scope")
        if scope in SCOPES:
            return SCOPES[scope]
    raise UserError(
        f"{folder}: nothing says what was trained. Put its plan.json back, or write into it "
        '{"task": "pretrain"}, {"task": "detection"} or {"task": "segmentation"}.'
    )


def _damaged(path: Path, why: str) -> UserError:
    return UserError(
        f"{path} cannot be read ({why}). Put a copy of it back; or move it away, and the report goes without."
    )

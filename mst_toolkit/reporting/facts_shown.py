"""What was run, on what, with which decisions; what can be typed next; versions and checksums."""

from __future__ import annotations

import shlex
from typing import Any

from mst_pretrain.runtime.atomic import file_sha256

from .reported_run import ReportedRun
from .shown import NONE, PagePart, PageTable, plain
from .side_by_side import start_of
from .verdict_words import NAMES

WEIGHTS = ("backbone/model.safetensors", "config.py", "recipe.py")


def run_facts(run: ReportedRun) -> list[tuple[str, str]]:
    """Labels and values of what was run; only those that are known."""
    done, total = run.steps
    start = run.plan.get("start") or {}
    options = run.record.get("options") or {}
    facts = [
        ("task", NAMES[run.task]),
        ("command", run.plan.get("command")),
        ("start", start_of(run)),
        ("architecture", start.get("architecture")),
        ("steps", f"{done:,} of {total:,}" if total else f"{done:,}" if done else None),
        ("images in a step", run.record.get("batch")),
        ("seed", run.plan.get("seed", run.record.get("seed"))),
        ("options", " ".join(f"{key}={value}" for key, value in options.items())),
        ("created", run.plan.get("created", run.record.get("date"))),
        ("device", run.record.get("device")),
        ("processes", run.record.get("world_size")),
        ("folder", str(run.folder)),
    ]
    return [(key, plain(value)) for key, value in facts if value not in (None, "", NONE)]


def data_facts(run: ReportedRun) -> tuple[list[tuple[str, str]], list[str], PageTable | None]:
    """What the plan says of the data: labels and values, notes and warnings, objects by class."""
    data: dict[str, Any] = run.plan.get("data") or {}
    known = ("layout", "root", "train", "val", "classes")
    facts = [(key, plain(data[key])) for key in known if data.get(key) not in (None, "", [], {})]
    said = [
        *(str(note) for note in data.get("warnings") or ()),
        *(str(note) for note in data.get("notes") or ()),
    ]
    objects = data.get("objects") or {}
    rows = [[str(name), f"{count:,}"] for name, count in objects.items() if isinstance(count, int)]
    unit = "labelled pixels" if run.task == "segmentation" else "objects in the training images"
    return facts, said, PageTable(["class", unit], rows) if rows else None


def decisions(run: ReportedRun) -> PagePart:
    """Every decision with its reason."""
    part = PagePart()
    given = [one for one in run.plan.get("decisions") or () if isinstance(one, dict)]
    if not given:
        part.left_out.append("Decisions are left out: there is no plan.json with them.")
        return part
    rows = [[plain(one.get(key)) for key in ("key", "value", "why")] for one in given]
    part.tables.append(PageTable(["decision", "value", "why"], rows, texts=3))
    return part


def next_commands(run: ReportedRun) -> list[tuple[str, str]]:
    """What to type next, and what it does."""
    folder = shlex.quote(str(run.folder))
    root = (run.plan.get("data") or {}).get("root")
    data = shlex.quote(str(root)) if root else "DATA"
    if run.task == "pretrain":
        return [
            (f"mst probe knn {folder} LABELLED_PHOTOS", "measures the features without any training"),
            (
                f"mst finetune detection DATA --init {folder}",
                "or segmentation: trains on your labels from here",
            ),
            (f"mst export {folder} BACKBONE --to timm", "writes the backbone alone"),
        ]
    found = []
    if not run.metrics:
        found.append((f"mst evaluate {folder}", "measures the scores that are missing here"))
    return [
        *found,
        (f"mst predict {folder} PHOTOS --out predictions", "draws what it finds in new photos"),
        (
            f"mst compare {data} --starts {_starts(run)}",
            "asks whether the start made a difference",
        ),
        (
            f"mst export {folder} MODEL --to {'mmdet' if run.task == 'detection' else 'mmseg'}",
            "writes the model",
        ),
    ]


def _starts(run: ReportedRun) -> str:
    """A random and a supervised start, and the run's own."""
    own = (run.plan.get("start") or {}).get("given") or run.record.get("init_checkpoint") or "dino"
    return " ".join(dict.fromkeys(("random", "supervised", shlex.quote(str(own)))))


def versions(run: ReportedRun) -> PagePart:
    """Versions of the packages, and SHA-256 of config, weights, start and data."""
    part = PagePart()
    told = run.record.get("versions") or {}
    if told:
        part.tables.append(
            PageTable(["package", "version"], [[name, str(one)] for name, one in told.items()], 2)
        )
    else:
        part.left_out.append("Versions are left out: run.json does not have them.")
    files = {f"checkpoints/{path.name}": path for path in run.checkpoints.values()}
    files |= {name: run.folder / name for name in WEIGHTS if (run.folder / name).is_file()}
    rows = [[name, file_sha256(path)] for name, path in files.items()]
    scored = run.metrics.get("sha256")
    if scored and run.checkpoints and scored not in (digest for _, digest in rows):
        part.sentences.append(
            "The scores are of a checkpoint that is not in this folder any more: evaluate again."
        )
    start = (run.plan.get("start") or {}).get("sha256") or run.record.get("init_sha256")
    data = run.metrics.get("data")
    digest = data.get("sha256") if isinstance(data, dict) else data
    further = (
        ("start", start),
        ("evaluated checkpoint", run.metrics.get("sha256")),
        ("validation data", digest),
    )
    rows += [[name, str(value)] for name, value in further if value]
    if rows:
        part.tables.append(PageTable(["file", "SHA-256"], rows, 2))
    else:
        part.left_out.append("Checksums are left out: the folder has neither config nor checkpoints.")
    return part

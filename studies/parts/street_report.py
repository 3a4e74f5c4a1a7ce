"""The street-scene comparison: refuses runs that were not alike; mean, spread, classes, provenance."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from mst_pretrain.checkpoints.backbone import find_backbone
from mst_pretrain.checkpoints.storage import INITIAL, load_checkpoint
from mst_pretrain.runtime.atomic import file_sha256, write_json, write_text
from mst_pretrain.runtime.config import load_config
from mst_pretrain.runtime.errors import UserError
from mst_pretrain.runtime.run_files import LATEST
from mst_transfer.comparison.record import RESULTS
from mst_transfer.comparison.table import (
    SPREAD,
    TASKS,
    Table,
    as_json,
    column_of,
    markdown,
    over_seeds,
    read_record,
    with_spread,
)
from mst_transfer.evaluation.baselines import position_prior

from .jobs import ROOT

PRETRAIN, UPERNET = ROOT / "studies/configs/street_pretrain.py", ROOT / "studies/configs/street_upernet.py"
PRIOR = "position prior"
SPLIT = "test_dataloader.dataset.data_prefix."
BACKBONE = "teacher.backbone."
Run = tuple[str, int]  # row and seed


@dataclass
class Results:
    """Where everything is that one study has finished.

    Attributes:
        data: Folder in Cityscapes' layout.
        rows: Of the tables, in this order; the first is the one that the others are compared with.
        splits: Each fine-tuning was tested on, in a folder of that name.
        fine_tuned: Work directories.
        started_from: The checkpoint each fine-tuning should have started from.
        pretrained: Work directories by arm and seed.
    """

    data: Path
    rows: list[str]
    splits: Sequence[str]
    fine_tuned: dict[Run, Path]
    started_from: dict[Run, Path]
    pretrained: dict[Run, Path]


def write_report(results: Results, out: Path, command: str) -> str:
    """``report.md`` and ``report.json`` in ``out``; returns the Markdown.

    Raises:
        UserError: Runs that differ in more than they should.
    """
    pretraining = check_pretraining(results.pretrained)
    records = read_records(results)
    tables = [table_of(results, records, split) for split in results.splits]
    run = next(iter(records.values()))["run"]  # read_records has made sure that all have its length
    steps, batch = run["iterations"], run["batch"]
    lengths = [
        f"`{command}`",
        f"Pretraining (studies/configs/street_pretrain.py, DINO and MST alike): {pretraining['steps']} steps of "
        f"{pretraining['batch']} frames, {pretraining['images']:,} train frames seen. The random weights are those "
        "that MST's pretraining began with; DINO's began with the same, tensor by tensor.",
        f"Fine-tuning (studies/configs/street_upernet.py): {steps} steps of {batch} frames, {steps * batch:,} train "
        "frames seen.",
    ]
    classes = {split: class_table(results, split) for split in results.splits}
    lines = ["# Street scenes", "", *(f"{line}\n" for line in lengths), markdown(tables)]
    for split, by_class in classes.items():
        lines += [*class_markdown(by_class, f"IoU per class, CamVid {split}"), ""]
    lines += ["| pretraining | seed | checkpoint (sha256) | its start (sha256) |", "|---|---|---|---|"]
    lines += [
        f"| {run['arm']} | {run['seed']} | {run['sha256']} | {run['initial_sha256']} |"
        for run in pretraining["runs"]
    ]
    text = "\n".join(lines) + "\n"
    write_text(text, out / "report.md")
    whole = {"command": command, "pretraining": pretraining, "classes": classes}
    report = json.dumps({**whole, **as_json(tables)})
    write_json(json.loads(report.replace(f"{ROOT}/", "")), out / "report.json")  # paths of this machine
    return text


def check_pretraining(folders: dict[Run, Path]) -> dict[str, Any]:
    """Length, batch and digests of the pretrainings.

    Raises:
        UserError: They differ in more than mask, decoder and seed, or two of one seed began with other backbones.
    """
    settings: dict[Run, Any] = {}
    runs = []
    for (arm, seed), folder in folders.items():
        meta = load_checkpoint(folder / LATEST)["meta"]
        cfg = Config.fromstring(meta["cfg"], ".py")
        settings[arm, seed] = {"steps": meta["iter"], **alike(cfg)}
        digests = {"sha256": file_sha256(folder / LATEST), "initial_sha256": file_sha256(folder / INITIAL)}
        runs.append({"arm": arm, "seed": seed, **digests})
    first, *others = folders
    for run in others:
        if settings[run] != settings[first]:
            keys = [key for key, value in settings[first].items() if settings[run].get(key) != value]
            raise UserError(
                f"{folders[run]} and {folders[first]} are no comparison: they differ in {', '.join(keys)}. Move one "
                "away and run it again."
            )
        same_seed = next(other for other in folders if other[1] == run[1])
        one, two = (
            find_backbone(folders[other] / INITIAL, prefix=BACKBONE).state for other in (run, same_seed)
        )
        if set(one) != set(two) or not all(torch.equal(one[key], two[key]) for key in one):
            raise UserError(f"{folders[run]} and {folders[same_seed]} began with different backbones.")
    batch = settings[first]["train_dataloader"]["batch_size"]
    steps = settings[first]["steps"]
    return {"steps": steps, "batch": batch, "images": steps * batch, "runs": runs}


def alike(cfg: Config) -> dict[str, Any]:
    """The part of a pretraining's config that does not depend on the arm, the seed or the folder."""
    content: dict[str, Any] = cfg._cfg_dict.to_dict()
    content["model"] = {k: v for k, v in content["model"].items() if k not in ("masking", "decoder")}
    content["randomness"] = {k: v for k, v in content["randomness"].items() if k != "seed"}
    return {k: v for k, v in content.items() if k not in ("work_dir", "resume", "load_from")}


def read_records(results: Results) -> dict[tuple[Run, str], dict[str, Any]]:
    """The record of every test, by run and split.

    Raises:
        UserError: A run did not start from its row's checkpoint, or two of a split differ in config, options or length.
    """
    records = {}
    for run, folder in results.fine_tuned.items():
        start = file_sha256(results.started_from[run])
        for split in results.splits:
            (path,) = (folder / split).glob(f"{RESULTS}/*.json")
            record = read_record(path)
            if record["run"]["init_sha256"] != start or record["run"]["seed"] != run[1]:
                raise UserError(
                    f"{folder} was not trained from {results.started_from[run]} with seed {run[1]}."
                )
            # The row's name instead of a path, which differs by design; the split is the table's: no option, no
            # other data.
            options = {k: v for k, v in record["options"].items() if not k.startswith(SPLIT)}
            data = {**(record["run"].get("data") or {}), "test": record.get("data")}
            trained = {**record["run"], "init": run[0], "data": data}
            records[run, split] = {**record, "options": options, "run": trained}
    for split in results.splits:
        own_records = [record for (_, own), record in records.items() if own == split]
        columns = {(column_of(record), str(record.get("data"))) for record in own_records}
        if len(columns) > 1:
            raise UserError(
                "the fine-tunings are no comparison: "
                + " | ".join(sorted(map(str, columns)))
                + ". Move away "
                "those of another config or other options, and run them again."
            )
    return records


def table_of(results: Results, records: dict[tuple[Run, str], dict[str, Any]], split: str) -> Table:
    """mIoU, mAcc and aAcc on one split: a row per initialisation."""
    own = {run: record for (run, tested), record in records.items() if tested == split}
    column = column_of(next(iter(own.values())))
    runs = {
        (column, row): [record for (name, _), record in sorted(own.items()) if name == row]
        for row in results.rows
    }
    return Table(replace(TASKS[1], name=f"CamVid {split}, mIoU / mAcc / aAcc"), [column], results.rows, runs)


def class_table(results: Results, split: str) -> dict[str, dict[str, dict[str, Any]]]:
    """IoU in per cent by row and class, with the mean over classes, of the position prior and every initialisation."""
    classes = load_config(UPERNET).classes
    rows = {PRIOR: [position_prior(results.data, split, classes).as_dict()]}
    for row in results.rows:
        reports = [
            json.loads((folder / split / "test_report.json").read_text())
            for (name, _), folder in results.fine_tuned.items()
            if name == row
        ]
        rows[row] = [report["scores"][0] for report in reports]
    table: dict[str, dict[str, dict[str, Any]]] = {}
    for row, scores in rows.items():
        for name in (*classes, "mean") if scores else ():
            found = [s["mIoU"] if name == "mean" else s["per_class"][name]["IoU"] for s in scores]
            per_cent = [100 * value for value in found if value is not None]
            table.setdefault(row, {})[name] = over_seeds(per_cent)
    return table


def class_markdown(by_row: dict[str, dict[str, dict[str, Any]]], title: str) -> list[str]:
    """A row per class, a column per initialisation."""
    lines = [f"### {title}", "", f"Per cent, mean over seeds; ± is the {SPREAD}.", ""]
    lines += ["| class | " + " | ".join(by_row) + " |", "|---" * (len(by_row) + 1) + "|"]
    for name in next(iter(by_row.values())):
        cells = [with_spread(columns[name]) for columns in by_row.values()]
        lines.append(f"| {'**mean**' if name == 'mean' else name} | {' | '.join(cells)} |")
    return lines

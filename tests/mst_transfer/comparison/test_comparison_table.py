"""The comparison's table from fabricated work directories with known numbers."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import pytest

from mst_pretrain.runtime.errors import UserError
from mst_transfer.comparison.identity import config_sha256
from mst_transfer.comparison.runs import Job, check_weights
from mst_transfer.comparison.table import as_json, build, collect, markdown, write

ROOT = Path(__file__).parents[3]
COCO = str(ROOT / "configs/coco/mask_rcnn_mst.py")
SETR = str(ROOT / "configs/cityscapes/setr_pup_mst_deit-s.py")


def fabricate(root: Path, init: str, seed: int, metrics: dict[str, float], **changes: Any) -> Path:
    """What a training and a test of one row leave, with the given numbers."""
    config = changes.pop("config", COCO)
    folder = root / f"{Path(config).stem}_{init}_seed{seed}"
    run = {
        "config": config,
        "config_sha256": "a" * 64,
        "init": init,
        "init_checkpoint": None if init == "random" else f"pretrained/{init}.safetensors",
        "init_sha256": None if init == "random" else "b" * 64,
        "seed": seed,
        "options": {},
        "batch": 16,
        "iterations": 100,
        **changes.pop("run", {}),
    }
    record = {
        "config": config,
        "run": run,
        "checkpoint": str(folder / "latest.pth"),
        "checkpoint_sha256": f"{seed:02d}{init[:2].encode().hex()}" + "c" * 58,
        "iteration": 100,
        "tta": False,
        "options": {},
        "metrics": metrics,
        "date": "2026-01-02T03:04:05+00:00",
        **changes,
    }
    path = folder / "results" / f"{len(list(folder.glob('results/*')))}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record))
    return path


def ap(box: float, mask: float) -> dict[str, float]:
    return {"coco/bbox_mAP": box, "coco/segm_mAP": mask, "coco/bbox_mAP_50": 0.9}


def table_of(root: Path, trivial: bool = False) -> dict[str, dict[str, str]]:
    """The Markdown's cells, read back: row -> column -> text, without or of the trivial baselines alone."""
    records, left_out = collect([root])
    lines = [line for line in markdown(build(records), left_out).splitlines() if line.startswith("|")]
    found: dict[str, dict[str, str]] = {}
    head: list[str] = []
    for line in lines:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] == "initialisation":
            head = cells[1:]
        elif not line.startswith("|-"):
            pairs = zip(head, cells[1:], strict=True)
            own = {name: text for name, text in pairs if name.startswith("trivial baseline") == trivial}
            found.setdefault(cells[0], {}).update(own)
    return found


def test_mean_and_spread_over_seeds(tmp_path: Path) -> None:
    """A cell would show one seed for all, the wrong spread, or a fraction for per cent."""
    boxes = [0.430, 0.437, 0.450]
    for seed, box in enumerate(boxes):
        fabricate(tmp_path, "dino", seed, ap(box, 0.39 + box / 100))
    fabricate(tmp_path, "random", 0, ap(0.301, 0.287))
    table = table_of(tmp_path)
    mean, spread = 100 * sum(boxes) / 3, 100 * statistics.stdev(boxes)
    assert f"{mean:.2f} ± {spread:.2f}" == "43.90 ± 1.01"
    assert table["dino"]["mask_rcnn_mst"] == "43.90 ± 1.01 / 39.44 ± 0.01 (n=3)"
    assert table["random"]["mask_rcnn_mst"] == "30.10 / 28.70"


def test_what_nobody_ran_is_empty(tmp_path: Path) -> None:
    """An empty cell would be filled from another row, or a row that nobody has run be missing."""
    assert table_of(tmp_path) == {} and markdown([]) == "no test has left a result yet"
    fabricate(tmp_path, "moby", 0, ap(0.4, 0.3))
    table = table_of(tmp_path)
    assert list(table) == ["random", "supervised", "dino", "moby", "esvit", "ibot", "mst-100", "mst-300"]
    assert {row: cells for row, cells in table.items() if any(cells.values())} == {
        "moby": {"mask_rcnn_mst": "40.00 / 30.00"}
    }


def test_other_settings_are_other_columns(tmp_path: Path) -> None:
    """A shortened run, an unfinished one, an augmented test or an edited config would be averaged with the recipe's."""
    fabricate(tmp_path, "dino", 0, ap(0.40, 0.30))
    fabricate(tmp_path, "dino", 1, ap(0.10, 0.10), iteration=60)
    fabricate(tmp_path, "dino", 2, ap(0.20, 0.10), run={"options": {"amp": True}})
    fabricate(tmp_path, "dino", 3, ap(0.50, 0.40), tta=True)
    fabricate(tmp_path, "dino", 4, ap(0.60, 0.40), options={"model.test_cfg.rcnn.score_thr": 0.1})
    fabricate(tmp_path, "dino", 5, ap(0.70, 0.40), run={"config_sha256": "d" * 64})
    assert table_of(tmp_path)["dino"] == {
        "mask_rcnn_mst (version aaaaaaaa)": "40.00 / 30.00",
        "mask_rcnn_mst (version dddddddd)": "70.00 / 40.00",
        "mask_rcnn_mst (after 60 of 100 iterations)": "10.00 / 10.00",
        "mask_rcnn_mst (amp=True)": "20.00 / 10.00",
        "mask_rcnn_mst (multi-scale + flip)": "50.00 / 40.00",
        "mask_rcnn_mst (model.test_cfg.rcnn.score_thr=0.1)": "60.00 / 40.00",
    }


def test_the_newest_test_of_a_seed_counts(tmp_path: Path) -> None:
    """A seed tested twice would count twice, or an old number stay."""
    fabricate(tmp_path, "dino", 0, ap(0.40, 0.30), date="2026-03-01T00:00:00+00:00")
    fabricate(tmp_path, "dino", 0, ap(0.20, 0.10), date="2026-02-01T00:00:00+00:00")
    assert table_of(tmp_path)["dino"]["mask_rcnn_mst"] == "40.00 / 30.00"


def test_every_number_has_its_origin(tmp_path: Path) -> None:
    """A number would stand in the table without the config, checkpoint, seed and date it belongs to."""
    fabricate(tmp_path, "ibot", 5, {"mIoU": 74.04, "mAcc": 82.35, "aAcc": 96.1}, config=SETR)
    records, left_out = collect([tmp_path])
    tables = build(records)
    found = json.loads(json.dumps(as_json(tables, left_out)))["tables"][0]
    (cell,) = [cell for row in found["rows"] for cell in row["cells"] if cell is not None]
    assert cell["metrics"]["mIoU"] == {"mean": 74.04, "spread": None, "n": 1, "values": [74.04]}
    (run,) = cell["runs"]
    assert (run["run"]["seed"], run["run"]["config"], run["date"]) == (5, SETR, "2026-01-02T03:04:05+00:00")
    assert len(run["checkpoint_sha256"]) == len(run["run"]["init_sha256"]) == 64


def test_files_are_written(tmp_path: Path) -> None:
    """The Markdown or the JSON would be missing, or be another table than the one printed."""
    fabricate(tmp_path / "runs", "dino", 0, ap(0.40, 0.30))
    records, left_out = collect([tmp_path / "runs"])
    tables = build(records)
    write(tables, left_out, tmp_path)
    assert (tmp_path / "comparison.md").read_text() == markdown(tables, left_out) + "\n"
    assert json.loads((tmp_path / "comparison.json").read_text()) == as_json(tables, left_out)


def test_unknown_runs_and_broken_records(tmp_path: Path) -> None:
    """A result whose row is unknown would be dropped without a word, or a broken file end in a traceback."""
    path = fabricate(tmp_path, "dino", 0, ap(0.40, 0.30))
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"run": None}))
    records, left_out = collect([tmp_path])
    assert records == [] and "has no run.json beside it" in markdown(build(records), left_out)
    path.write_text(json.dumps({"metrics": {}}))
    with pytest.raises(UserError, match=r"it lacks checkpoint, .* run the test again"):
        collect([tmp_path])
    path.write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        collect([tmp_path])
    with pytest.raises(UserError, match="does not exist"):
        collect([tmp_path / "absent"])


def test_a_test_of_its_own_is_a_column_of_its_own(tmp_path: Path) -> None:
    """A test with an edited config, on one image, or without the training's option would replace the recipe's cell."""
    own, other = {"images": 5000, "sha256": "1" * 64}, {"images": 1, "sha256": "2" * 64}
    train = {"images": 9, "sha256": "3" * 64}
    run = {"data": {"train": train, "test": own}}
    size, lr = "model.test_cfg.rcnn.score_thr", "optim_wrapper.optimizer.lr"
    fabricate(tmp_path, "dino", 0, ap(0.40, 0.30), run=run, data=own, config_sha256="a" * 64)
    fabricate(tmp_path, "dino", 1, ap(0.50, 0.30), run=run, data=own, config_sha256="e" * 64)
    fabricate(tmp_path, "dino", 2, ap(0.60, 0.30), run=run, data=other, config_sha256="a" * 64)
    options = {size: 0.5, lr: 0.1}
    fabricate(tmp_path, "dino", 3, ap(0.70, 0.30), run={**run, "options": options}, data=own)
    fabricate(
        tmp_path, "dino", 4, ap(0.80, 0.30), run={**run, "options": options}, data=own, options={size: 0.9}
    )
    few = {"data": {"train": other, "test": own}}
    fabricate(tmp_path, "dino", 5, ap(0.90, 0.30), run=few, data=own)
    assert table_of(tmp_path)["dino"] == {
        "mask_rcnn_mst (training data 33333333)": "40.00 / 30.00",
        "mask_rcnn_mst (training data 22222222)": "90.00 / 30.00",
        "mask_rcnn_mst (tested with another config eeeeeeee)": "50.00 / 30.00",
        "mask_rcnn_mst (tested on other data 22222222: 1 images)": "60.00 / 30.00",
        f"mask_rcnn_mst ({size}=0.5 in training only, {lr}=0.1)": "70.00 / 30.00",
        f"mask_rcnn_mst ({size}=0.5 in training and 0.9 in the test, {lr}=0.1)": "80.00 / 30.00",
    }


@pytest.mark.parametrize(
    ("change", "done"),
    [
        ({}, True),
        ({"options": {"model.test_cfg.rcnn.score_thr": 0.9}}, False),
        ({"config_sha256": "e" * 64}, False),
        ({"data": {"images": 1, "sha256": "2" * 64}}, False),
        ({"tta": True}, False),
        ({"iteration": 99}, False),
        ({"run": {"init": "moby"}}, False),
        ({"run": {"seed": 1}}, False),
        ({"run": {"options": {"amp": True}}}, False),
        ({"run": {"config_sha256": "e" * 64}}, False),
    ],
)
def test_only_the_jobs_own_test_is_its_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], done: bool
) -> None:
    """compare.py --run would take a test with other settings for the missing one, and leave the cell empty."""
    monkeypatch.chdir(tmp_path)
    own = {"images": 5000, "sha256": "1" * 64}
    run = {"data": {"train": own, "test": own}, "config_sha256": config_sha256(COCO), **change.get("run", {})}
    record = {"data": own, "config_sha256": run["config_sha256"], **change, "run": run}
    fabricate(tmp_path / "work_dirs", "dino", 0, ap(0.40, 0.30), **record)
    assert Job(COCO, "dino", 0, (), {}, (), 1).tested() is done


def test_the_digest_of_a_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same recipe on another data folder, seed or start would be another column; a changed one would not."""
    base = config_sha256(COCO)
    monkeypatch.setenv("MST_DATA", "/elsewhere")
    assert config_sha256(COCO) == base
    monkeypatch.delenv("MST_DATA")
    child = tmp_path / "mine.py"
    child.write_text(
        f"_base_ = {COCO!r}\nrandomness = dict(seed=5)\nmodel = dict(backbone=dict(init_cfg=None))"
    )
    assert config_sha256(child) == base
    child.write_text(f"_base_ = {COCO!r}\nmodel = dict(backbone=dict(drop_path_rate=0.3))")
    assert config_sha256(child) != base


def test_missing_weights_are_all_named_before_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The third row's missing file would be found after the first two rows' days of training."""
    monkeypatch.chdir(tmp_path)
    jobs = [Job(COCO, row, seed, (), {}, (), 1) for row in ("random", "dino", "mst-100") for seed in (0, 1)]
    with pytest.raises(UserError) as raised:
        check_weights(jobs)
    message = str(raised.value)
    assert message.startswith("2 rows have no weights")
    assert (
        "pretrained/dino_swin-t.safetensors" in message
        and "--from esvit --which teacher --to timm" in message
    )
    assert "tools/pretrain.sh configs/pretrain/mst_swin-t_8xb64-100e_in1k.py" in message


def test_the_trivial_baseline_stands_in_every_row(tmp_path: Path) -> None:
    """Numbers would stand without the bar of a predictor that sees nothing, or a fraction among percentages."""
    fabricate(tmp_path, "random", 0, ap(0.2, 0.1), baseline={"coco/bbox_mAP": 0.021, "coco/segm_mAP": 0.013})
    fabricate(tmp_path, "random", 0, {"mIoU": 30.0}, config=SETR, baseline={"mIoU": 14.3, "mAcc": 20.0})
    rows = table_of(tmp_path, trivial=True)
    assert rows["random"]["trivial baseline (most frequent boxes)"] == "2.10 / 1.30"
    assert {row["trivial baseline (position prior)"] for row in rows.values()} == {"14.30 / 20.00"}
    tables = as_json(build(collect([tmp_path])[0]))["tables"]
    assert tables[0]["baseline"] == [{"box AP": pytest.approx(2.1), "mask AP": pytest.approx(1.3)}]

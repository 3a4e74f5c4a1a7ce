"""Reading a run's folder: every file may be missing, none may be damaged without a word."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mst_pretrain.runtime.errors import UserError
from mst_toolkit.reporting.reported_run import read_run
from mst_toolkit.reporting.score_tables import probe_part
from tests.mst_toolkit.reporting.example_runs import history, metrics, plan, write_run


def test_all_files_of_a_run_are_read(tmp_path: Path) -> None:
    """A part of the page would be empty although the run has it."""
    lines = [*history(40, 100), {"step": 40, "stage": "eval", "AP": 12.5, "best": True}]
    folder = write_run(tmp_path / "a", "x = 1\n", lines, plan=plan("detection"), metrics=metrics("detection"))
    (folder / "checkpoints").mkdir()
    for name in ("last", "initial"):
        (folder / f"checkpoints/{name}.pth").touch()
    np.savez(folder / "per_image.npz", images=np.array(["a.png"]))
    run = read_run(folder)
    assert (run.task, run.name, run.title) == ("detection", "a", "Example detection")
    assert [line["step"] for line in run.training] == [10, 20, 30, 40]
    assert run.validations == [{"step": 40, "stage": "eval", "AP": 12.5, "best": True}]
    assert run.steps == (40, 100)
    assert run.checkpoint == folder / "checkpoints/last.pth"
    assert run.per_image["images"].tolist() == ["a.png"]
    assert run.metrics["main"]["value"] == 34.2


def test_an_untrained_checkpoint_is_not_shown_as_the_runs(tmp_path: Path) -> None:
    """Pictures of random weights would be taken for those of the run."""
    folder = write_run(tmp_path / "a", plan=plan("detection"))
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints/initial.pth").touch()
    assert read_run(folder).checkpoint is None


def test_a_pretraining_is_judged_by_its_probes(tmp_path: Path) -> None:
    """A pretraining that was measured would be called unmeasured."""
    folder = write_run(tmp_path / "a", plan=plan("pretrain"))
    for kind, value in (("knn", 30.0), ("linear", 40.0)):
        write_run(folder / f"probe_{kind}", metrics=metrics("segmentation", value))
    np.savez(folder / "probe_linear/per_image.npz", images=np.array(["a.png"]))
    run = read_run(folder)
    assert list(run.probes) == ["linear", "knn"] and run.task == "pretrain"
    assert run.metrics["main"]["value"] == 40.0 and run.per_image["images"].tolist() == ["a.png"]
    assert probe_part(run).tables[0].rows[1] == ["knn", "IoU", "30.0", "31.0 to 37.1", "3.1", "-"]


def test_a_half_written_last_line_does_not_count(tmp_path: Path) -> None:
    """The page of a killed run could not be written."""
    folder = write_run(tmp_path / "a", lines=history(20, 100), plan=plan("pretrain"))
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('{"step": 30, "lo')
    assert [line["step"] for line in read_run(folder).training] == [10, 20]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metrics.jsonl", '{"loss": 1}\n{"step": 2}\n'),
        ("metrics.jsonl", "[1]\n{}\n"),
        ("plan.json", "{"),
        ("metrics.json", "[1]"),
        ("per_image.npz", "no zip"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: str) -> None:
    """Somebody would look for the fault in the program."""
    folder = write_run(tmp_path / "a", plan=plan("pretrain"))
    (folder / name).write_text(content)
    with pytest.raises(UserError, match=rf"{name} cannot be read .*Put a copy of it back"):
        read_run(folder)


def test_a_pickle_is_not_opened(tmp_path: Path) -> None:
    """A report of somebody else's run could run their code."""
    folder = write_run(tmp_path / "a", plan=plan("pretrain"))
    np.savez(folder / "per_image.npz", images=np.array([{"a": 1}], object))
    with pytest.raises(UserError, match=r"per_image.npz cannot be read"):
        read_run(folder)


def test_a_folder_that_is_not_a_run_is_refused(tmp_path: Path) -> None:
    """An empty page would be written for a mistyped folder."""
    with pytest.raises(UserError, match=r"there is no run folder .*nothing. Give one: mst report"):
        read_run(tmp_path / "nothing")
    with pytest.raises(UserError, match=r"is not a run folder: it has none of plan.json"):
        read_run(tmp_path)


def test_the_task_comes_from_the_config_where_no_plan_is(tmp_path: Path) -> None:
    """A run of mst train, which has no plan, would have no report."""
    folder = write_run(tmp_path / "a", 'default_scope = "mmseg"\n', history())
    assert read_run(folder).task == "segmentation"
    (folder / "config.py").write_text("a = 1\n")
    with pytest.raises(UserError, match="nothing says what was trained"):
        read_run(folder)

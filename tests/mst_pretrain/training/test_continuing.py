"""Going on with a run after a restart, and with another number of processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config

from mst_pretrain.training import continuing
from mst_pretrain.training.continuing import Share, began_with, choose, fitting, settle, what_changes

RUN = {
    "batch": 8,
    "per_process": 4,
    "config": {"train_dataloader": {"batch_size": 4}, "train_cfg": {"type": "PretrainLoop", "accumulate": 1}},
}


@pytest.mark.parametrize(
    ("processes", "accumulates", "share"),
    [
        (1, True, Share(1, 4, 2)),  # the memory of a process stays
        (4, True, Share(4, 2, 1)),
        (8, True, Share(8, 1, 1)),
        (3, True, None),
        (1, False, Share(1, 8, 1)),
        (4, False, Share(4, 2, 1)),
        (3, False, None),
    ],
)
def test_the_images_of_a_step_stay(processes: int, accumulates: bool, share: Share | None) -> None:
    """A job that goes on with another number of machines would count its schedules in steps of other sizes."""
    found = fitting(Share(2, 4, 1), Share(processes, 4, 1), accumulates)
    assert found == share and (found is None or found.batch == 8)
    assert fitting(Share(2, 6, 2), Share(4, 6, 2), True) == Share(4, 6, 1)  # accumulation is given up first


def test_how_the_run_began_is_read_from_its_checkpoint() -> None:
    """What changes would be told of a run that never was; of an old checkpoint, that does not tell, nothing is said."""
    assert began_with(RUN) == Share(2, 4, 1)
    assert began_with({**RUN, "batch": 24, "config": {**RUN["config"], "train_cfg": {"accumulate": 3}}}) == (  # type: ignore[dict-item]
        Share(2, 4, 3)
    )
    assert began_with({}) is None and began_with({"batch": 8}) is None


def config(tmp_path: Path, **options: Any) -> Config:
    return Config(
        {
            "work_dir": str(tmp_path),
            "train_dataloader": {"batch_size": 4},
            "train_cfg": {"type": "PretrainLoop", "accumulate": 1},
            "model": {"decoder": {"width": 8}, "head": {"norm": "none"}},
            **options,
        }
    )


def test_another_number_of_processes_is_told_and_fitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """torchrun --nnodes=1:2 would end in a refusal when a machine goes, or change the step without a word."""
    torch.save({"meta": {"run": RUN}, "state_dict": {}}, tmp_path / "latest.pth")
    resumed = {"resume": True, "load_from": str(tmp_path / "latest.pth")}
    cfg = config(tmp_path, **resumed)
    settle(cfg)  # one process, the run began with two
    assert (cfg.train_dataloader.batch_size, cfg.train_cfg.accumulate) == (4, 2)
    said = capsys.readouterr().out
    assert "began with 2 (processes) x 4 (images) x 1 (accumulated) = 8 images a step" in said
    assert "goes on with 1 (processes) x 4 (images) x 2 (accumulated) = 8" in said
    assert "another order" in said and "batch norm" not in said  # as many images at once as before
    monkeypatch.setattr(continuing, "get_world_size", lambda: 2)
    monkeypatch.setattr(continuing, "broadcast_object_list", lambda values: None)
    cfg = config(tmp_path, **resumed, train_dataloader={"batch_size": 3})
    settle(cfg)
    assert (
        cfg.train_dataloader.batch_size == 3 and capsys.readouterr().out == ""
    )  # refused later, with reasons
    words = what_changes(cfg, Share(2, 4, 1), Share(4, 2, 1))
    assert "batch norm that is not synchronised sees 2 images instead of 4" in words


@pytest.mark.parametrize("name", ["TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT"])
def test_a_job_that_is_started_again_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A restart by torchrun or Slurm would begin anew and overwrite what the run has done."""
    torch.save({"meta": {}, "state_dict": {}}, tmp_path / "latest.pth")
    cfg = config(tmp_path)
    choose(cfg, None)
    assert not cfg.get("resume")
    monkeypatch.setenv(name, "0")
    choose(cfg, None)
    assert not cfg.get("resume")
    monkeypatch.setenv(name, "2")
    choose(cfg, None)
    assert cfg.resume and cfg.load_from == str(tmp_path / "latest.pth")
    old = tmp_path / "elsewhere.pth"
    torch.save({}, old)
    cfg = config(tmp_path)
    choose(cfg, str(old))  # given when the job was first started: by now there is a newer one
    assert cfg.load_from == str(tmp_path / "latest.pth")

"""A disk that takes no checkpoint: the previous one stays, training goes on, and ends at the third in a row."""

from __future__ import annotations

import errno
import json
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.fileio import LocalBackend
from mmengine.hooks import Hook
from mmengine.logging import MessageHub, MMLogger

import mst_pretrain  # noqa: F401  registers the model, the data and the loop
from mst_pretrain.checkpoints.storage import load_checkpoint
from mst_pretrain.runtime.errors import UserError
from mst_pretrain.runtime.run_files import newest_checkpoint
from mst_pretrain.training.failing_saves import (
    NotWritten,
    Saves,
    SparingCheckpointHook,
    not_written,
    shortage,
)
from mst_pretrain.training.run_log import TIMES
from mst_pretrain.training.runner import MSTRunner, build_runner

MakeConfig = Callable[..., Config]
SMALLEST = 4096  # bytes: less than any checkpoint or log has


class SmallFiles(Hook):
    """From one step to the end of another no file may be longer than a few kilobytes.

    Args:
        first, last: Steps.
        seen: Gets the iterations of the newest checkpoint after each step between them.
    """

    priority = "LOWEST"

    def __init__(self, first: int, last: int, seen: list[int] | None = None) -> None:
        self.first, self.last, self.seen = first, last, seen

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        limited = self.first <= runner.iter + 1 <= self.last
        resource.setrlimit(resource.RLIMIT_FSIZE, (SMALLEST if limited else hard, hard))

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        if self.seen is not None and self.first <= runner.iter + 1 <= self.last:
            self.seen.append(load_checkpoint(runner.files.latest)["meta"]["iter"])


@pytest.fixture(autouse=True)
def no_limit() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def config_of(make: MakeConfig, folder: Path, tidy: bool = True, **options: Any) -> Config:
    cfg = make(
        run_folder=tidy,
        train_cfg__max_iters=12,
        default_hooks__logger__interval=1,
        default_hooks__checkpoint__interval=2,
        **options,
    )
    cfg.work_dir, cfg.log_level = str(folder), "INFO"
    cfg.experiment_name = f"{folder.parent.name}-{folder.name}"
    return cfg


def train(cfg: Config, *hooks: Hook, resume: bool = False) -> MSTRunner:
    if resume:
        cfg.resume, cfg.load_from = True, str(newest_checkpoint(cfg.work_dir, cfg.run_folder))
        cfg.experiment_name += "-resumed"
    runner = build_runner(cfg)
    for hook in hooks:
        runner.register_hook(hook)
    runner.train()
    assert isinstance(runner, MSTRunner)
    return runner


def lines_of(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(text) for text in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in TIMES} for line in lines]


def assert_equal(one: Path, other: Path) -> None:
    states = [load_checkpoint(path)["state_dict"] for path in (one, other)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


@pytest.mark.parametrize("tidy", [True, False])
def test_training_goes_on_beyond_a_full_disk(
    toy_config: MakeConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str], tidy: bool
) -> None:
    """Ten minutes without space would end a run of a week, or leave it without its last whole checkpoint."""
    seen: list[int] = []
    cfg = config_of(toy_config, tmp_path / "limited", tidy, default_hooks__checkpoint__max_keep_ckpts=2)
    runner = train(cfg, SmallFiles(5, 9, seen))
    assert seen == [4] * 5 and runner.saves.failed == 0
    train(config_of(toy_config, tmp_path / "free", tidy))
    last = "checkpoints/last.pth" if tidy else "latest.pth"
    assert_equal(tmp_path / "limited" / last, tmp_path / "free" / last)
    if tidy:
        said = " ".join(capsys.readouterr().out.split())
        assert "No checkpoint of step 6 was written: it needs" in said
        assert "and 5 kB a file may have (ulimit -f): at least" in said
        assert "last.pth stays as it was. Free some space" in said and "(now 2). [R11]" in said
        assert lines_of(tmp_path / "limited") == lines_of(tmp_path / "free")
    else:
        kept = sorted(path.name for path in (tmp_path / "limited").glob("iter_*.pth"))
        assert kept == ["iter_10.pth", "iter_12.pth"]
    assert not list((tmp_path / "limited").rglob("*.part"))


def test_three_in_a_row_end_the_run(toy_config: MakeConfig, tmp_path: Path) -> None:
    """A run would compute for days what nothing can keep; resumed, it would not be the undisturbed one."""
    folder = tmp_path / "run"
    with pytest.raises(
        UserError, match=r"step 10 was written.* 3 in a row failed\. Free .*--resume\. \[R11\]"
    ):
        train(config_of(toy_config, folder), SmallFiles(6, 12))
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert load_checkpoint(folder / "checkpoints/last.pth")["meta"]["iter"] == 4
    train(config_of(toy_config, folder), resume=True)
    train(config_of(toy_config, tmp_path / "free"))
    assert_equal(folder / "checkpoints/last.pth", tmp_path / "free/checkpoints/last.pth")
    assert lines_of(folder) == lines_of(tmp_path / "free")


def test_the_last_save_must_succeed(toy_config: MakeConfig, tmp_path: Path) -> None:
    """A run would be called finished, and its last steps be lost."""
    with pytest.raises(UserError, match=r"step 12 was written.*No later one would come\. Free some space"):
        train(config_of(toy_config, tmp_path / "run"), SmallFiles(11, 12))


def test_the_best_weights_stay_until_better_ones_are_written(
    toy_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """best.pth would be called that of a step whose weights nothing has kept."""
    put, scores = LocalBackend.put, iter([1.0, 2.0, 1.5])
    monkeypatch.setattr("mst_pretrain.evaluation.rankme.FeatureGram.rankme", lambda self: next(scores))

    def no_second(backend: LocalBackend, obj: bytes, path: str) -> None:
        best = tmp_path / "run/checkpoints/best.pth"
        if Path(path).name.startswith(best.name) and best.exists() and not refused:
            refused.append(path)
            put(backend, obj[:1000], path)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        put(backend, obj, path)

    refused: list[str] = []
    monkeypatch.setattr(LocalBackend, "put", no_second)
    train(config_of(toy_config, tmp_path / "run", evaluation__every_epochs=1.0))
    measured = [line for line in lines_of(tmp_path / "run") if line["stage"] == "eval"]
    assert [(line["step"], line["best"]) for line in measured] == [(4, True), (8, False), (12, True)]
    assert refused and load_checkpoint(tmp_path / "run/checkpoints/best.pth")["meta"]["iter"] == 12


@pytest.mark.parametrize(
    ("number", "free", "said"),
    [
        (errno.ENOSPC, 2_000_000, r"needs 30 MB in F, and 2,000 kB are free: at least 28 MB are missing\."),
        (
            errno.EDQUOT,
            10**12,
            r"needs 30 MB in F, and 1,000 kB your quota takes: at least 29 MB are missing\.",
        ),
        (errno.EROFS, 10**12, r"F is read-only \(Read-only file system\)\."),
        (errno.EIO, 10**12, r"F cannot be written \(Input/output error\)\."),
    ],
)
def test_how_much_is_missing(monkeypatch: pytest.MonkeyPatch, number: int, free: int, said: str) -> None:
    """Somebody would free too little, or look for space where the folder is read-only."""
    monkeypatch.setattr("shutil.disk_usage", lambda folder: _Usage(free))
    error = OSError(number, os.strerror(number))
    text = shortage(Path("F/last.pth"), 30_000_000, 1_000_000, error).replace("it needs", "needs")
    assert text == said.replace("\\", "")


class _Usage:
    def __init__(self, free: int) -> None:
        self.free = free


def test_without_any_checkpoint_the_message_says_so(tmp_path: Path) -> None:
    """Somebody would look for a file that was never there."""
    error = OSError(errno.EIO, "Input/output error")
    said = str(not_written(tmp_path / "last.pth", 2000, 1, 0, error, tmp_path / "last.pth"))
    assert said.startswith("No checkpoint of step 2,000") and said.endswith(
        "There was no checkpoint to continue from yet."
    )


def test_only_a_disk_is_forgiven(capsys: pytest.CaptureFixture[str]) -> None:
    """A logger's lost connection would pass for a full disk, or every line of a run repeat one warning."""
    saves = Saves()
    for _ in range(2):
        with saves.spared("curves"):
            raise OSError(errno.ENOSPC, "No space left on device")
    assert saves.told == {"curves"}
    with saves.spared("curves"):
        pass
    assert saves.told == set()
    with pytest.raises(ConnectionError), saves.spared("curves"):
        raise ConnectionRefusedError(errno.ECONNREFUSED, "refused")


def test_the_best_checkpoint_of_mmengines_layout_stays(tmp_path: Path) -> None:
    """MMEngine removes the best checkpoint before it writes a better one: a full disk would leave neither."""
    full = [False]

    def save(folder: str, filename: str, *_: Any, **__: Any) -> None:
        if full[0]:
            raise NotWritten("No space.") from OSError(errno.ENOSPC, "No space left on device")
        Path(folder, filename).write_text("weights")

    runner = SimpleNamespace(message_hub=MessageHub("best"), logger=MMLogger("best"), saves=Saves())
    runner.save_checkpoint, runner.iter, runner.epoch, runner.max_iters = save, 4, 0, 100
    hook = SparingCheckpointHook(interval=4, by_epoch=False, save_best="score", rule="greater")
    hook.out_dir, hook.file_backend = str(tmp_path), LocalBackend()
    hook._save_best_checkpoint(runner, {"score": 1.0})
    first = tmp_path / "best_score_iter_4.pth"
    runner.iter, full[0] = 8, True
    hook._save_best_checkpoint(runner, {"score": 2.0})
    assert [path.name for path in tmp_path.iterdir()] == [first.name] and runner.saves.failed == 1
    assert runner.message_hub.get_info("best_score") == 1.0 and hook.best_ckpt_path == str(first)
    runner.iter, full[0] = 12, False
    hook._save_best_checkpoint(runner, {"score": 1.5})
    assert [path.name for path in tmp_path.iterdir()] == ["best_score_iter_12.pth"]
    assert runner.saves.failed == 0

"""k-NN and RankMe while a pretraining runs: when, on which features, and what "best" follows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image
from torch import Tensor

from mst_pretrain.checkpoints.storage import load_checkpoint
from mst_pretrain.data.sources import open_source
from mst_pretrain.evaluation.features import extract_features
from mst_pretrain.evaluation.held_out import open_held_out, usual_k
from mst_pretrain.evaluation.knn import accuracy, knn_predict
from mst_pretrain.evaluation.rankme import FeatureGram
from mst_pretrain.method.mst import MST
from mst_pretrain.runtime.errors import Stopped, UserError
from mst_pretrain.training import feature_watch
from mst_pretrain.training import watch as watch_module
from mst_pretrain.training.feature_watch import FeatureWatchHook
from mst_pretrain.training.runner import build_runner

MakeConfig = Callable[..., Config]
EVERY_2 = {"evaluation__every_epochs": 0.5}  # 17 images in steps of 4: 4 steps an epoch


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """Three classes of ten images each, of one colour and noise."""
    for number in range(30):
        rng = np.random.default_rng(number)
        pixels = np.full((40, 44, 3), 20, np.uint8)
        pixels[..., number % 3] = 200
        noisy = np.clip(pixels + rng.normal(0, 40, pixels.shape), 0, 255).astype(np.uint8)
        folder = tmp_path / "labelled" / "rgb"[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noisy).save(folder / f"{number}.png")
    return tmp_path / "labelled"


def lines(cfg: Config, name: str = "evaluations.jsonl") -> list[dict[str, Any]]:
    text = Path(cfg.work_dir, name).read_text()
    return [line for line in map(json.loads, text.splitlines()) if line["stage"] == "eval"]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The teacher's features of every step."""
    found: list[Tensor] = []
    original = MST.loss

    def loss(self: MST, global_views: Tensor, *others: Tensor) -> dict[str, Tensor]:
        losses = original(self, global_views, *others)
        found.append(self.teacher_features(global_views.flatten(0, 1)).pooled)
        return losses

    monkeypatch.setattr(MST, "loss", loss)
    return found


@pytest.mark.parametrize("tidy", [False, True], ids=["MMEngine's layout", "run folder"])
def test_rankme_is_of_the_last_steps_features(
    toy_config: MakeConfig, seen: list[Tensor], tidy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The curve would be of another network or of old steps, or its best weights would not be kept."""
    monkeypatch.setattr(feature_watch, "IMAGES_PER_DIMENSION", 0.5)  # 8 images: two steps
    cfg = toy_config(train_cfg__max_epochs=2, run_folder=tidy, **EVERY_2)
    build_runner(cfg).train()
    measured = lines(cfg, "metrics.jsonl" if tidy else "evaluations.jsonl")
    assert [line["step"] for line in measured] == [2, 4, 6, 8] and len(seen) == 8
    expected = []
    for step in (2, 4, 6, 8):
        sums = FeatureGram()
        sums.add(torch.cat(seen[step - 2 : step]))
        expected.append(sums.rankme())
    assert [line["rankme"] for line in measured] == pytest.approx(expected, rel=1e-5)
    assert {line["main"] for line in measured} == {"rankme"}
    folder = Path(cfg.work_dir, "checkpoints" if tidy else "")
    best = load_checkpoint(folder / "best.pth")
    assert best["meta"]["iter"] == [2, 4, 6, 8][int(np.argmax(expected))] and "optimizer" not in best
    newest = load_checkpoint(folder / ("last.pth" if tidy else "latest.pth"))
    assert newest["meta"]["iter"] == 8 and "optimizer" in newest


def test_knn_is_the_tools_and_decides(toy_config: MakeConfig, labelled: Path) -> None:
    """Another number than that of tools/eval_knn.py would choose the best weights."""
    cfg = toy_config(train_cfg__max_epochs=1, evaluation__knn=str(labelled), evaluation__every_epochs=1.0)
    runner = build_runner(cfg)
    runner.train()
    (line,) = lines(cfg)
    train, val = open_held_out(str(labelled))
    assert (len(train.labels), len(val.labels)) == (24, 6)
    assert sorted([*train.indices, *val.indices]) == list(range(30))
    trunk, source = runner.model.teacher.backbone, open_source(labelled, labelled=True)
    rows = extract_features(trunk, source, 37, 32, workers=0)
    truth = torch.as_tensor(source.labels)
    k = usual_k(24)
    got = knn_predict(rows[train.indices], truth[train.indices], rows[val.indices], [k])
    assert k == 20 and line["knn"] == accuracy(got[k], truth[val.indices])
    assert line["main"] == "knn" and line["rankme"] >= 1 and Path(cfg.work_dir, "best.pth").is_file()


def test_measuring_changes_no_weight(toy_config: MakeConfig, labelled: Path) -> None:
    """A run that is watched would be another run: drop path off, other random numbers, another position of the data."""
    states = []
    for options in (
        {"evaluation": None},
        {"evaluation__knn": str(labelled), "evaluation__every_epochs": 0.25},
    ):
        cfg = toy_config(train_cfg__max_epochs=2, model__backbone__drop_path_rate=0.3, **options)
        build_runner(cfg).train()
        states.append(load_checkpoint(Path(cfg.work_dir, "latest.pth")))
        assert Path(cfg.work_dir, "evaluations.jsonl").is_file() == (len(states) == 2)
    one, other = (state["state_dict"] for state in states)
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


@pytest.mark.parametrize(
    ("stopped", "tidy"), [(3, True), (4, False), (4, True), (5, False)], ids=lambda value: str(value)
)
def test_a_resumed_run_measures_what_the_uninterrupted_one_does(
    toy_config: MakeConfig, stopped: int, tidy: bool
) -> None:
    """The sums of the steps before the stop would be lost, or a measurement be missing or be there twice."""
    length = {"train_cfg__max_epochs": 3, "evaluation__every_epochs": 1.0, "run_folder": tidy}
    whole = toy_config(**length)
    build_runner(whole).train()
    first = toy_config(**length, default_hooks__checkpoint__interval=stopped, train_cfg__max_iters=stopped)
    build_runner(first).train()
    name = "metrics.jsonl" if tidy else "evaluations.jsonl"
    if stopped == 4:  # killed before the line was written
        path = Path(first.work_dir, name)
        kept = [line for line in path.read_text().splitlines() if json.loads(line)["stage"] != "eval"]
        path.write_text("".join(f"{line}\n" for line in kept))
    second = toy_config(**length, default_hooks__checkpoint__interval=stopped)
    second.work_dir = first.work_dir
    second.resume, second.load_from = (
        True,
        str(Path(first.work_dir, "checkpoints/last.pth" if tidy else "latest.pth")),
    )
    build_runner(second).train()
    told = [
        [(line["step"], line["rankme"], line["best"]) for line in lines(cfg, name)] for cfg in (whole, second)
    ]
    assert [step for step, *_ in told[0]] == [4, 8, 12] and told[0] == told[1]


def watch(interval: int, end: int, steps: int) -> FeatureWatchHook:
    hook = FeatureWatchHook()
    hook.interval, hook.end, hook.steps = interval, end, steps
    return hook


@pytest.mark.parametrize(
    ("interval", "end", "steps", "due"),
    [(10, 30, 3, [10, 20, 30]), (10, 32, 3, [10, 20, 32]), (10, 33, 3, [10, 20, 30, 33]), (50, 7, 7, [7])],
)
def test_when_features_are_measured(interval: int, end: int, steps: int, due: list[int]) -> None:
    """The last measurement would be missing or of too few steps, or the remaining time would count other ones."""
    hook = watch(interval, end, steps)
    assert [step for step in range(1, end + 1) if hook.is_due(step)] == due
    for done in range(end + 1):
        for last in (end, end - 1):
            expected = sum(done < step <= last for step in due)
            assert hook.due_between(done, last) == (expected if done <= last else 0), (done, last)
    assert [hook.next_due(step) for step in range(1, end + 1)] == [
        min(one for one in due if one >= step) for step in range(1, end + 1)
    ]


def test_a_labelled_set_that_cannot_be_used(labelled: Path, tmp_path: Path) -> None:
    """The run would fail hours later, at its first measurement."""
    for name in ("g", "b"):
        for path in (labelled / name).iterdir():
            path.unlink()
        (labelled / name).rmdir()
    with pytest.raises(UserError, match="one class, r"):
        FeatureWatchHook(str(labelled))
    (labelled / "b").mkdir()
    next((labelled / "r").iterdir()).rename(labelled / "b/alone.png")
    with pytest.raises(UserError, match=r"class b .* has one image"):
        FeatureWatchHook(str(labelled))
    with pytest.raises(UserError, match="nowhere"):
        FeatureWatchHook(str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="every_epochs is 0"):
        FeatureWatchHook(every_epochs=0)


def test_a_folder_with_a_validation_part_is_taken_as_it_is(labelled: Path, tmp_path: Path) -> None:
    """Images that the user held out would be neighbours of one another."""
    root = tmp_path / "both"
    for name in ("train", "valid"):
        (root / name).mkdir(parents=True)
        for kind in "rgb":
            (root / name / kind).symlink_to(labelled / kind)
    train, val = open_held_out(str(root))
    assert len(train.labels) == len(val.labels) == 30 and train.indices is None
    assert "valid" in val.source.name(0)


def test_several_ranks_features_are_put_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """RankMe would be of one process's images."""
    monkeypatch.setattr(feature_watch, "all_gather", lambda rows: [rows, rows + 1])
    hook, rows = watch(2, 2, 2), torch.randn(4, 3)
    runner: Any = SimpleNamespace(
        iter=0, model=SimpleNamespace(teacher_pooled=rows), optim_wrapper=SimpleNamespace(skipped=False)
    )
    hook.after_train_iter(runner, 0)
    runner.iter, runner.optim_wrapper.skipped = 1, True
    hook.after_train_iter(runner, 0)
    expected = FeatureGram()
    expected.add(torch.cat([rows, rows + 1]))
    assert hook.sums.rows == 8 and torch.equal(hook.sums.gram, expected.gram)


def test_a_signal_in_a_measurement_stops_the_run_at_once(
    toy_config: MakeConfig, labelled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch system would kill a run that measures a large set, or the resumed run would lack the measurement."""
    options = {"train_cfg__max_epochs": 2, "evaluation__knn": str(labelled), "evaluation__every_epochs": 1.0}
    whole, cfg = toy_config(**options), toy_config(**options)
    build_runner(whole).train()
    original = feature_watch.extract_features

    def extract(*args: Any, what: str, **kwargs: Any) -> Tensor:
        if what == "val features":
            monkeypatch.setattr(watch_module, "stop_requested", lambda: True)
        return original(*args, what=what, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(feature_watch, "extract_features", extract)
        with pytest.raises(Stopped, match="in the validation after step 4"):
            build_runner(cfg).train()
    monkeypatch.setattr(watch_module, "stop_requested", lambda: False)
    assert not lines(cfg) and load_checkpoint(Path(cfg.work_dir, "latest.pth"))["meta"]["unvalidated"]
    cfg.resume, cfg.load_from = True, str(Path(cfg.work_dir, "latest.pth"))
    build_runner(cfg).train()
    told = [[(line["step"], line["knn"], line["rankme"]) for line in lines(one)] for one in (whole, cfg)]
    assert len(told[0]) == 2 and told[0] == told[1]

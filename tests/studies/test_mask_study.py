"""The mask study: its arms, its dense probe, its statistics."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mst_pretrain.method.masking import make_mask
from mst_pretrain.runtime.config import load_config, read_options
from mst_pretrain.runtime.errors import UserError
from studies.mask_study import PRESETS, Preset, Study
from studies.parts.arms import ARMS, GPU_ARMS, Arm
from studies.parts.dense import Frames, cell_shares, confusions, mean_iou, position_prior, probe
from studies.parts.report import PIXELS, PRIOR, ReadOut, bootstrap_difference, score_table, write_report


def test_the_expected_count_is_what_the_mask_hides() -> None:
    """The table would print another number of hidden tokens than the arm hides, or two arms share a folder."""
    attention = torch.rand(200, 8, 8, generator=torch.Generator().manual_seed(0))
    for arm in (*ARMS, *GPU_ARMS):
        mask = make_mask(attention=attention, seeds=torch.arange(200), **arm.masking)
        assert arm.hidden(64) == (0 if mask is None else mask.sum().item() / 200), arm.name
    assert len({arm.folder for arm in ARMS}) == len({arm.folder for arm in GPU_ARMS}) == 4


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_every_arm_is_a_config_with_its_mask_and_decoder(preset: Preset) -> None:
    """A preset would stop at its third run, on a lent GPU, or two arms train alike."""
    models = []
    for arm in preset.arms:
        options = [option.split("=", 1) for option in arm.cfg_options()]
        cfg = load_config(preset.config, read_options(preset.config, dict(options), "tools/train.py"))
        assert {key: cfg.model.masking[key] for key in arm.masking} == arm.masking
        assert (cfg.model.decoder is not None) == arm.decoder
        models.append(cfg.model.to_dict())
    assert all(models.count(model) == 1 for model in models)


def test_the_gpu_preset_is_what_its_table_says() -> None:
    """The rows would be of another network, length or data than those that they are compared with."""
    cfg, arms = load_config(PRESETS["gpu"].config), PRESETS["gpu"].arms
    assert [(arm.mode, arm.decoder) for arm in arms] == [
        ("none", False),
        ("none", True),
        ("attention", True),
        ("random_equal_count", True),
    ]
    backbone = cfg.model.backbone
    assert (backbone.embed_dim, backbone.depth, backbone.patch_size, backbone.img_size) == (192, 12, 8, 64)
    assert (cfg.train_cfg.max_iters, cfg.train_dataloader.batch_size) == (1310, 256)
    given = Study(Path(), Path(), [], preset=PRESETS["gpu"], photos=["photos/train", "photos/val"])
    assert given.photos == ["photos/train", "photos/val"]
    assert given.length == "1310 steps of train in batches of 256"


def test_shares_and_confusions_count_pixels() -> None:
    """Unlabelled pixels would count, or true and predicted class be swapped."""
    labels = torch.tensor([[[0, 0, 1, 255], [0, 1, 1, 255]]])
    shares = cell_shares(labels, (1, 2), 2)
    assert shares.tolist() == [[[[0.75, 0.0]], [[0.25, 0.5]]]]
    guess = torch.tensor([[[0, 1, 1, 0], [0, 0, 1, 1]]])
    assert confusions(labels, guess, 2).tolist() == [[[2, 1], [1, 2]]]
    assert mean_iou(torch.tensor([[2, 1], [1, 2]])).item() == pytest.approx(50.0)
    assert mean_iou(torch.tensor([[3, 1, 0], [0, 4, 0], [0, 0, 0]])).item() == pytest.approx(
        100 * (3 / 4 + 4 / 5) / 2
    )


def test_the_probe_learns_what_is_linear() -> None:
    """The probe would not reach a map that its features hold, or beat the prior on noise."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (24, 4, 4), generator=generator)
    enlarged = labels.repeat_interleave(8, 1).repeat_interleave(8, 2)
    images = (enlarged.unsqueeze(1) * 80 + 20).expand(-1, 3, -1, -1).to(torch.uint8)
    labels[:4, 0, 0] = 255
    train, val = Frames(images[:16], labels[:16]), Frames(images[16:], labels[16:])

    def seeing(pixels: Tensor) -> Tensor:
        """One-hot of the brightness in each cell."""
        mean = torch.nn.functional.adaptive_avg_pool2d(pixels[:, :1], 4)
        return torch.cat([(mean < -1.0).float(), (mean > 0.5).float()], 1)

    good = mean_iou(probe(seeing, train, val, 3, seed=0, epochs=60, lr=0.1).sum(0)).item()
    blind = mean_iou(probe(lambda x: torch.ones(len(x), 2, 4, 4), train, val, 3, seed=0).sum(0)).item()
    prior = mean_iou(position_prior(train, val, 3).sum(0)).item()
    assert good > 99 and blind < 40 and prior < 60
    confusion = position_prior(train, val, 3)
    assert confusion.shape == (8, 3, 3) and (confusion.sum((1, 2)) == 16).all()


def test_the_bootstrap_is_paired_and_signed() -> None:
    """The interval would be of unpaired images, of the wrong sign, or miss a difference that is plain."""
    generator = torch.Generator().manual_seed(0)
    hard = torch.rand(1, 2000, generator=generator) < 0.3
    better = hard | (torch.arange(2000) % 20 == 0)
    difference, low, high = bootstrap_difference(better, hard)
    assert difference == pytest.approx(100 * (better.double().mean() - hard.double().mean()).item())
    assert 0 < low < difference < high and high - low < 2.5  # unpaired it would be about 5.7 wide
    assert bootstrap_difference(hard, hard) == (0.0, 0.0, 0.0)
    counts = torch.randint(1, 50, (2, 30, 3, 3), generator=generator)
    improved = counts + 40 * torch.eye(3, dtype=torch.int64)
    difference, low, high = bootstrap_difference(improved, counts)
    expected = (mean_iou(improved.sum(1)) - mean_iou(counts.sum(1))).mean().item()
    assert difference == pytest.approx(expected) and 0 < low < difference < high


def test_the_report_says_when_a_run_was_too_short(tmp_path: Path) -> None:
    """An arm below raw pixels would be compared, a missing seed counted, or a baseline be taken for an arm."""
    generator = torch.Generator().manual_seed(1)

    def runs(share: float, *seeds: int) -> dict[int, ReadOut]:
        correct = [torch.rand(400, generator=generator) < share for _ in range(2)]
        return {
            seed: ReadOut(*correct, torch.randint(1, 9, (5, 3, 3), generator=generator)) for seed in seeds
        }

    arms = {
        "DINO": runs(0.3, 1, 2),
        "guided 25 %": runs(0.5, 1),
        "short": runs(0.05, 1),
        "empty": {},
        "raw pixels": runs(0.1, 0),
        "position prior": {0: ReadOut(None, None, torch.ones(5, 3, 3, dtype=torch.int64))},
    }
    hidden: dict[str, float] = {"DINO": 0, "guided 25 %": 16, "short": 8, "empty": 8}
    text = write_report(tmp_path, arms, hidden, {"guided 25 %": 15.9}, "5 epochs", "cmd")
    whole = json.loads((tmp_path / "report.json").read_text())
    assert whole["below_raw_pixels"] == ["short"]
    assert {name: set(rows) for name, rows in whole["differences"].items()} == {
        "DINO": {"guided 25 %"},
        "guided 25 %": {"DINO"},
    }
    assert list(whole["scores"]["DINO"]) == ["1", "2"] and "empty" not in whole["scores"]
    assert "| guided 25 % | 1 | 15.9 (expected 16.0) |" in text
    assert "short ends below raw pixels" in text and (tmp_path / "report.png").stat().st_size > 1000
    expected = 100 * (arms["guided 25 %"][1].knn.double().mean() - arms["DINO"][1].knn.double().mean())  # type: ignore[union-attr]
    assert whole["differences"]["DINO"]["guided 25 %"]["knn"][0] == pytest.approx(expected.item())


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """Two runs at a time, with read-outs left out."""
    study = Study(tmp_path, tmp_path, [], jobs=2)
    monkeypatch.setattr(study, "read_out", lambda arm, seed: None)
    return study


def test_runs_share_the_cores(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --jobs 2 one run would wait for the other, or a run be left out."""
    both, ran = threading.Barrier(2), []

    def pretrain(arm: Arm, seed: int) -> None:
        both.wait(timeout=20)
        ran.append((seed, arm.name))

    monkeypatch.setattr(study, "pretrain", pretrain)
    study.run()
    assert sorted(ran) == sorted((seed, arm.name) for seed in (1, 2, 3) for arm in ARMS)


def test_one_failure_ends_the_study(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hours of other runs would go by before a run's error is shown."""
    ran = []

    def pretrain(arm: Arm, seed: int) -> None:
        ran.append(arm)
        if (seed, arm) != (1, ARMS[0]):
            study.jobs.stopped.wait(20)
        raise UserError("broken")

    monkeypatch.setattr(study, "pretrain", pretrain)
    with pytest.raises(UserError, match="broken"):
        study.run()
    assert len(ran) < 6


def test_every_row_of_the_study_has_its_trivial_baselines() -> None:
    """An arm would stand without the raw pixels and the position prior that it has to beat."""
    right = torch.tensor([True, False])
    confusion = torch.tensor([[[3, 1], [1, 3]]])
    arms = {name: {1: ReadOut(right, right, confusion)} for name in ("DINO", PIXELS)}
    arms[PRIOR] = {1: ReadOut(None, None, confusion)}
    scores = {name: [run.scores() for run in runs.values()] for name, runs in arms.items()}
    head, _, *rows = score_table(arms, scores, {}, {})
    assert head.endswith("trivial baselines (raw pixels / raw pixels / position prior) |")
    assert [row.split(" | ")[-1] for row in rows] == ["50.00 / 50.00 / 60.00 |"] * 3

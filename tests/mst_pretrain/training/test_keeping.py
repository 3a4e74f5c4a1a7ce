"""Which checkpoints of a run stay."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config

import mst_pretrain  # noqa: F401  registers the model, the data and the loop
from mst_pretrain.checkpoints.storage import load_checkpoint
from mst_pretrain.runtime.errors import UserError
from mst_pretrain.training import keeping
from mst_pretrain.training.keeping import KeepingHook
from mst_pretrain.training.runner import build_runner

MakeConfig = Callable[..., Config]
# 17 images in batches of 4: an epoch has 4 iterations
EVERY_STEP: dict[str, Any] = {
    "train_cfg__max_iters": 6,
    "default_hooks__checkpoint__interval": 1,
    "default_hooks__checkpoint__max_keep_ckpts": 2,
    "default_hooks__checkpoint__keep_every_epochs": 1,
}


def train(cfg: Config) -> set[str]:
    """Names of the numbered checkpoints that are left."""
    build_runner(cfg).train()
    return {path.name for path in Path(cfg.work_dir).rglob("iter_*.pth")}


@pytest.mark.parametrize(
    ("tidy", "first", "second"),
    [
        (False, {"iter_4.pth", "iter_5.pth", "iter_6.pth"}, {"iter_4.pth", "iter_8.pth", "iter_9.pth"}),
        (True, {"iter_4.pth", "iter_5.pth"}, {"iter_4.pth", "iter_8.pth"}),  # the newest is last.pth
    ],
    ids=["MMEngine's layout", "run folder"],
)
def test_the_last_ones_and_one_of_every_epoch_stay(
    toy_config: MakeConfig, tidy: bool, first: set[str], second: set[str]
) -> None:
    """A run of weeks would fill the disk, or have nothing to go back to; a resumed one forget its own files."""
    cfg = toy_config(**EVERY_STEP, run_folder=tidy)
    foreign = Path(cfg.work_dir, "checkpoints" if tidy else "", "iter_77.pth")
    foreign.parent.mkdir(parents=True)
    foreign.write_bytes(b"another run's")
    assert train(cfg) == first | {foreign.name}
    latest = Path(cfg.work_dir, "checkpoints/last.pth" if tidy else "latest.pth")
    for name in first:
        assert load_checkpoint(latest.with_name(name))["meta"]["iter"] == int(name[5:-4])
    cfg.resume, cfg.load_from, cfg.train_cfg.max_iters = True, str(latest), 9
    cfg.experiment_name = f"{cfg.experiment_name}-resumed"
    assert train(cfg) == second | {foreign.name}
    assert load_checkpoint(latest)["meta"]["iter"] == 9
    for name in second:
        assert load_checkpoint(latest.with_name(name))["meta"]["iter"] == int(name[5:-4])


def test_nothing_is_deleted_for_a_damaged_one(
    toy_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a failing disk every good checkpoint would be deleted, one after the other."""
    monkeypatch.setattr(keeping, "damage", lambda path: "its checksum is another")
    cfg = toy_config(**{**EVERY_STEP, "train_cfg__max_iters": 4})
    assert train(cfg) == {f"iter_{step}.pth" for step in range(1, 5)}


@pytest.mark.parametrize("every", [0, -1, 1.5, True])
def test_an_impossible_number_of_epochs_is_refused(every: Any) -> None:
    """A run would divide by zero at its first checkpoint."""
    with pytest.raises(UserError, match="keep_every_epochs is"):
        KeepingHook(keep_every_epochs=every)

"""Which validation is the best."""

from __future__ import annotations

import pytest

from mst_pretrain.runtime.errors import UserError
from mst_pretrain.training.best import Best

BOTH = {"mask AP": 10.0, "mask AP50": 20.0, "box AP": 30.0, "box AP50": 40.0}


@pytest.mark.parametrize(
    ("wanted", "scores", "name"),
    [
        (None, BOTH, "mask AP"),
        ("auto", {"AP": 1.0, "AP50": 2.0}, "AP"),
        (None, {"aAcc": 90.0, "mIoU": 40.0}, "mIoU"),
        (None, {"accuracy": 1.0}, "accuracy"),
        ("coco/bbox_mAP", BOTH, "box AP"),
        ("coco/segm_mAP_50", BOTH, "mask AP50"),
        ("coco/bbox_mAP_50", {"AP": 1.0, "AP50": 2.0}, "AP50"),
        ("box AP50", BOTH, "box AP50"),
        ("mAcc", {"aAcc": 1.0, "mAcc": 2.0}, "mAcc"),
    ],
)
def test_the_score_that_decides(wanted: str | None, scores: dict[str, float], name: str) -> None:
    """The best checkpoint would be that of another score than the user asked for."""
    best = Best(wanted, None)
    assert best.improves(1, scores) and best.name == name


def test_more_is_better_and_of_a_loss_less() -> None:
    """The worst checkpoint would be kept."""
    best = Best(None, None)
    assert [best.improves(step, {"AP": score}) for step, score in enumerate([5, 4, 6, 6], 1)] == [
        *(True, False),
        *(True, False),
    ]
    assert best.words() == "best 6.0 at step 3"
    loss = Best("val_loss", None)
    assert [loss.improves(step, {"val_loss": score}) for step, score in enumerate([5, 6, 4], 1)] == [
        *(True, False, True),
    ]
    assert loss.words() == "best"


def test_a_resumed_run_knows_the_best_of_before() -> None:
    """A worse checkpoint would replace the best one after a resume."""
    best = Best(None, None)
    lines = [
        {"step": 5, "stage": "eval", "time": 1.7e9, "epoch": 1.5, "main": "AP", "AP": 9.0, "best": True},
        {"step": 10, "stage": "eval", "time": 1.8e9, "epoch": 3.0, "main": "AP", "AP": 8.0, "best": False},
    ]
    best.start(lines)
    assert (best.name, best.step, best.value) == ("AP", 5, 9.0)
    assert not best.improves(15, {"AP": 8.5}) and best.improves(20, {"AP": 9.5})


@pytest.mark.parametrize("wanted", ["coco/segm_mAP", "mIoU", "AP5"])
def test_a_score_that_no_validation_gives_is_refused(wanted: str) -> None:
    """Nothing would ever be the best."""
    with pytest.raises(
        UserError, match=rf"save_best is '{wanted}', and the validation gives AP, AP50. Set it"
    ):
        Best(wanted, None).improves(1, {"AP": 1.0, "AP50": 2.0}, ["coco/bbox_mAP", "coco/bbox_mAP_50"])


def test_impossible_settings() -> None:
    """Two best checkpoints of one name would replace each other."""
    with pytest.raises(UserError, match="one best checkpoint"):
        Best(["AP", "AP50"], None)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="'greater' or 'less'"):
        Best(None, "more")

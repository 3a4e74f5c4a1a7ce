"""The criterion, and that a table is made once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from examples.quickstart import judge
from examples.quickstart.arms import RANDOM, SHIPPED
from mst_pretrain.runtime.errors import UserError


def seed(shipped: float, random: float = 11.0, raw: float = 7.0, prior: float = 14.0) -> dict[str, Any]:
    """Scores of a seed, equal for 20 and 320 labelled scenes; those of 80 fail, and do not count."""
    by_arm = {"raw pixels": raw, "position prior": prior, RANDOM: random, SHIPPED: shipped}
    return {"scores": {arm: {"20": score, "80": 0.0, "320": score} for arm, score in by_arm.items()}}


def test_the_criterion() -> None:
    """A checkpoint that is not above random weights or the position prior in some seed would be called good."""
    assert judge.failures({"11": seed(17.0), "12": seed(30.0)}) == []
    assert len(judge.failures({"11": seed(16.99)})) == 2  # 5.99 above the random start, with 20 and with 320
    assert len(judge.failures({"11": seed(17.0), "12": seed(17.0, prior=17.0)})) == 2  # not above the prior
    (words, _) = judge.failures({"11": seed(20.0, raw=25.5)})
    assert words == "seed 11, 20 labelled scenes: 20.00 against 25.50 of the raw pixels"
    one = seed(20.0)
    one["scores"][SHIPPED]["320"] = 12.0  # fails with 320 alone: against random + 6 and against the prior
    assert [text.split(":")[0] for text in judge.failures({"13": one})] == [
        "seed 13, 320 labelled scenes"
    ] * 2
    with pytest.raises(ValueError, match="no seed"):
        judge.failures({})


def test_table_has_a_row_for_each_seed_and_number_of_scenes() -> None:
    """The published table would leave a seed out, or give one arm's score to another."""
    judged = seed(17.0) | {
        "gains over the random start": {
            count: {"value": 6.0, "low": 4.5, "high": 7.25} for count in ("20", "80", "320")
        }
    }
    lines = judge.markdown({"11": judged, "12": judged}).splitlines()
    assert len(lines) == 2 + 6
    assert lines[2] == "| 11 | 20 | 7.0 | 14.0 | 11.0 | 17.0 | +6.0 (+4.5 to +7.2) |"
    key = "scores with the weak ridge"
    weak = {"11": {key: seed(16.0)["scores"]}, "12": {key: seed(19.0)["scores"]}}
    assert judge.markdown_of_weak(weak).splitlines()[2] == "| 20 | 7.0 | 14.0 | 11.0 | 17.5 |"


def test_seeds_judge_once(tmp_path: Path) -> None:
    """Somebody would judge until a table pleases."""
    out, checkpoint = tmp_path / "judged.json", tmp_path / "x.safetensors"
    out.write_text("{}")
    arguments = ["--checkpoint", str(checkpoint), "--seeds", "11", "--out"]
    with pytest.raises(UserError, match="judge once"):
        judge.main([*arguments, str(out)])
    with pytest.raises(UserError, match="does not exist"):
        judge.main([*arguments, str(tmp_path / "new.json")])
    assert json.loads(out.read_text()) == {}

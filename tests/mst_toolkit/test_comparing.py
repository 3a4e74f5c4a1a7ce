"""What a comparison keeps apart."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mst_pretrain.runtime.errors import UserError
from mst_toolkit.comparing import keep_settings, run_folder, short_names, summary, table
from mst_toolkit.image_scores import LabelImages, save
from mst_toolkit.starts import find_start


def test_trainings_with_other_settings_are_not_mixed(tmp_path: Path) -> None:
    """A table would hold 300-step and 600-step trainings side by side when a comparison is called again."""
    settings = {"data": "d", "steps": 300, "cfg_options": ("a=1",), "gpus": 1, "workers": None}
    keep_settings(tmp_path, settings)
    keep_settings(tmp_path, {**settings, "gpus": 2, "cfg_options": ["a=1"], "skip_broken": False})
    with pytest.raises(UserError, match="skip_broken was None, now True"):
        keep_settings(tmp_path, {**settings, "skip_broken": True})
    with pytest.raises(UserError, match="steps was 300, now 600"):
        keep_settings(tmp_path, {**settings, "steps": 600})


def test_every_row_has_the_trivial_baseline_of_its_own_labels(tmp_path: Path) -> None:
    """The baseline of one choice of labelled images would stand beside scores of three."""
    start = find_start("random", "vit_tiny_patch16_224")
    others = [start, replace(start, given="other", kind="file")]
    for place, one in enumerate(others):
        for seed, baseline in enumerate((10.0, 14.0)):
            folder = run_folder(tmp_path, 20, one, seed)
            folder.mkdir(parents=True)
            main = {"name": "mIoU", "baseline": baseline}
            (folder / "metrics.json").write_text(json.dumps({"main": main}))
            matrices = np.array([[[4, 1 + place], [1, 4]], [[6, 2], [1, 1 + seed]]])
            scores = LabelImages.of_matrices(np.array(["a", "b"]), np.array(["x", "y"]), matrices)
            save(folder / "per_image.npz", scores, "data")
    result = summary(tmp_path, [20], others, 2)
    assert [row["baseline"] for row in result["rows"]] == [12.0, 12.0]
    rows = table(result).splitlines()[2:]
    assert len(rows) == 2 and all("| 12.00 |" in row for row in rows)


def test_starts_are_called_by_their_last_part() -> None:
    """A table for people would be a table of paths, or two starts would have one name."""
    rows = [{"start": start} for start in ("random", "runs/photos_vit-s", "a/last.pth", "b/last.pth")]
    assert short_names({"rows": rows}) == {
        "random": "random",
        "runs/photos_vit-s": "photos_vit-s",
        "a/last.pth": "a/last.pth",
        "b/last.pth": "b/last.pth",
    }

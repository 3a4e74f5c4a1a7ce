"""The scripts that show overfitting and full-size iterations: what they cut out of data and read out of logs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.full_size import read_log
from mst_pretrain.runtime.errors import UserError
from studies.overfit import make_subset

LOG = """
11/23 14:24:06 - mmengine - INFO - MSTSwin from /tmp/x.safetensors: all 173 keys matched (not used: norm.bias)
11/23 14:24:06 - mmengine - INFO - Epoch(train)  [1][ 1/16]  lr: 1.0000e-07  eta: 0:09:00  time: 12.5  data_time: 1.2
11/23 14:24:06 - mmengine - INFO - Step 1: input [3, 800, 1088], [3, 600, 800]; 17 ground-truth objects; loss 7.2500; \
weights moved by 2.250e-02 (L2); peak memory 3.25 GiB
11/23 14:24:16 - mmengine - INFO - Epoch(train)  [1][ 2/16]  lr: 3.0000e-07  eta: 0:08:00  time: 10.25  data_time: 0.5
11/23 14:24:16 - mmengine - INFO - Step 2: input [3, 480, 640], [3, 512, 768]; 9 ground-truth objects; loss 7.0000; \
weights moved by 3.000e-02 (L2); peak memory 3.50 GiB
"""


def test_the_log_is_read() -> None:
    """The line would show another iteration's number than the run printed."""
    assert read_log(LOG) == {
        "input": ["[3, 800, 1088], [3, 600, 800]", "[3, 480, 640], [3, 512, 768]"],
        "ground_truth": ["17 ground-truth objects", "9 ground-truth objects"],
        "matched": "MSTSwin: all 173 keys matched (not used: norm.bias)",
        "loss": [7.25, 7.0],
        "weights_moved": [0.0225, 0.03],
        "peak_memory_gib": 3.5,
        "seconds_per_iteration": [12.5, 10.25],
    }
    with pytest.raises(UserError, match="no iteration was logged"):
        read_log("nothing")


def test_the_first_four_photographs(tmp_path: Path) -> None:
    """Other photographs would be learnt, or crowds and small things be left out to make it easier."""
    (tmp_path / "coco/train2017").mkdir(parents=True)
    (tmp_path / "coco/annotations").mkdir()
    ids = [30, 4, 17, 9, 25]
    for number in ids:
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"coco/train2017/{number}.png")
    content = {
        "images": [{"id": n, "file_name": f"{n}.png", "height": 8, "width": 8} for n in ids],
        "annotations": [
            {"id": n * 10 + k, "image_id": n, "iscrowd": int(k == 1)} for n in ids for k in (0, 1)
        ],
        "categories": [{"id": 1, "name": "person"}],
    }
    (tmp_path / "coco/annotations/instances_train2017.json").write_text(json.dumps(content))
    assert make_subset(tmp_path / "coco", tmp_path / "four") == [4, 9, 17, 25]
    for split in ("train2017", "val2017"):
        kept = json.loads((tmp_path / f"four/annotations/instances_{split}.json").read_text())
        assert kept["categories"] == content["categories"]
        assert sorted(a["id"] for a in kept["annotations"]) == [40, 41, 90, 91, 170, 171, 250, 251]
        files = {path.name for path in (tmp_path / "four" / split).iterdir()}
        assert files == {"4.png", "9.png", "17.png", "25.png"} == {i["file_name"] for i in kept["images"]}
    content["images"] = content["images"][:3]
    (tmp_path / "coco/annotations/instances_train2017.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="has 3 training photographs; 4 are needed"):
        make_subset(tmp_path / "coco", tmp_path / "three")

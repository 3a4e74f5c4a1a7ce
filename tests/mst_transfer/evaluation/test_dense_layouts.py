"""The dense probe and the position prior on label maps in other layouts than Cityscapes'."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mmengine.registry import DATASETS
from PIL import Image

from mst_pretrain.runtime.errors import UserError
from mst_toolkit.layouts import check, dataset, recognise
from mst_toolkit.probing import probe
from mst_transfer.evaluation.trivial import position_prior_of
from tests.mst_toolkit.layouts import drawn_data as drawn

SMALL = json.dumps({"embed_dim": 32, "depth": 2, "num_heads": 2, "img_size": 32})
SHORT = ["train_cfg.max_iters=2", "train_cfg.val_begin=3", "train_cfg.val_interval=3"]
SHORT += ["train_dataloader.batch_size=2"]
SHORT += [
    f"{part}_dataloader.{key}"
    for part in ("train", "val", "test")
    for key in ("num_workers=0", "persistent_workers=False")
]
COLORS = [(10, 20, 30), (200, 0, 0)]


def colored(root: Path) -> Path:
    """Two colors and the list that names them."""
    drawn.masks(root, COLORS)
    (root / "classes.txt").write_text("grass 10 20 30\nroof 200 0 0\n")
    return root


def voc(root: Path) -> Path:
    """VOC's folders and lists, maps with a palette."""
    for number in range(6):
        drawn.picture(root / f"JPEGImages/{number}.jpg", number)
        drawn.mask(
            root / f"SegmentationClass/{number}.png", [0, 1, 255], palette=[0, 0, 0, 128, 0, 0, *[0] * 762]
        )
    (root / "ImageSets/Segmentation").mkdir(parents=True)
    (root / "ImageSets/Segmentation/train.txt").write_text("0\n1\n2\n3\n")
    (root / "ImageSets/Segmentation/val.txt").write_text("4\n5\n")
    return root


@pytest.mark.parametrize(
    ("make", "images", "names"),
    [
        (lambda root: drawn.masks(root, [0, 255]), 5, ["background", "object"]),
        (colored, 5, ["grass", "roof"]),
        (voc, 2, None),
    ],
)
def test_dense_probe_of_other_layouts(
    tmp_path: Path, make: Callable[[Path], Path], images: int, names: list[str] | None, one_thread: None
) -> None:
    """The features of people's own masks could not be measured; or 255 be ignored where it is the object."""
    root = make(tmp_path / "data")
    options = ["--model", "vit_tiny_patch16_224", "--model-args", SMALL, "--cfg-options", *SHORT]
    result = probe("segmentation", None, root, tmp_path / "out", options=options)
    assert result["images"] == images and len(result["classes"]) == 2
    assert names is None or [row["name"] for row in result["classes"]] == names
    # stripes at the same places in every map: the prior is always right
    assert [row["baseline"] for row in result["classes"]] == [100, 100] and result["main"]["baseline"] == 100
    labelled = drawn.WIDTH * drawn.HEIGHT * images
    pixels = sum(row["pixels"] for row in result["classes"])
    assert pixels == labelled if names else 0.6 * labelled < pixels < 0.7 * labelled


def test_prior_of_colors_is_that_of_ids(tmp_path: Path) -> None:
    """Label maps of colors would have no trivial baseline beside their scores."""
    found = recognise(colored(tmp_path / "a"))
    drawn.masks(tmp_path / "b", [0, 1])
    priors = []
    for one in (found, recognise(tmp_path / "b")):
        with DATASETS.switch_scope_and_registry("mmseg") as registry:
            built = registry.build({**dataset(one, "train"), "pipeline": [], "serialize_data": False})
        priors.append(position_prior_of([built]).labels)
    assert np.array_equal(*priors) and set(np.unique(priors[0])) == {0, 1}


@pytest.mark.parametrize("suffix", [".tif", ".webp"])
def test_maps_in_other_formats(tmp_path: Path, suffix: str) -> None:
    """Whole label maps would be taken for missing; a lossy one would train on ids that its compression invented."""
    root = drawn.masks(tmp_path, [0, 1])
    for path in root.glob("masks/*/*.png"):
        Image.open(path).save(path.with_suffix(suffix), lossless=True)
        path.unlink()
    found = recognise(root)
    assert (found.train.count, found.objects) == (5, {"background": 3200, "object": 3200})
    assert [str(fault) for fault in check(found) if not fault.warning] == []
    if suffix == ".webp":
        path = root / "masks/train/0.webp"
        Image.open(path).save(path, lossless=False, quality=30)
        with pytest.raises(UserError, match="lossy WebP"):
            recognise(root)

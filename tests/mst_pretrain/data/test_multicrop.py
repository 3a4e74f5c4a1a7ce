"""Crops on the CPU: where they lie, what they depend on, how their parameters are drawn."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import ks_2samp, kstest
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.transforms import RandomResizedCrop

from mst_pretrain.data.datasets import UnlabelledImages
from mst_pretrain.data.decode import read_rgb
from mst_pretrain.data.labels import class_folders
from mst_pretrain.data.multicrop import (
    BOX_DRAWS,
    DRAWS,
    PARAMETERS,
    CropPlan,
    CropRecipe,
    MultiCrop,
    color_parameters,
    pixels_of,
    random_boxes,
)
from mst_pretrain.runtime.errors import UserError

CROPS: dict[str, Any] = dict(
    global_crops=[dict(size=32), dict(size=32, blur_probability=0.1, solarize_probability=0.2)],
    local_crop=dict(size=16, scale=[0.05, 0.4]),
    local_count=3,
)
Sample = dict[str, Tensor]


def drawn(count: int, columns: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((count, columns))


def one_crop(recipe: CropRecipe) -> MultiCrop:
    return MultiCrop([recipe], recipe, 0)


def same(one: Sample, other: Sample) -> bool:
    return set(one) == set(other) and all(
        torch.equal(one[key], other[key]) if isinstance(one[key], torch.Tensor) else one[key] == other[key]
        for key in one
    )


def test_sample_is_a_function_of_seed_epoch_and_index(images: Path) -> None:
    """A resumed run, another worker or another order of asking would cut other crops."""
    data = UnlabelledImages(str(images), CROPS, seed=5)
    first = {key: data[key] for key in [(0, 3), (1, 3), (0, 4)]}
    np.random.seed(1)
    again = UnlabelledImages(str(images), CROPS, seed=5)
    for key in reversed(list(first)):
        assert same(first[key], again[key])
    values = [*first.values(), UnlabelledImages(str(images), CROPS, seed=6)[0, 3]]
    assert len({int(sample["seed"]) for sample in values}) == 4
    assert len({sample["global_crops"].numpy().tobytes() for sample in values}) == 4
    assert [int(sample["index"]) for sample in values] == [3, 3, 4, 3]


def test_workers_cut_what_the_main_process_cuts(images: Path) -> None:
    """Augmentation would depend on the number of workers."""
    data = UnlabelledImages(str(images), CROPS)
    order: Any = [(0, index) for index in range(8)]
    batches = [list(DataLoader(data, batch_size=4, sampler=order, num_workers=n)) for n in (0, 2)]
    assert all(same(one, other) for one, other in zip(*batches, strict=True))


def test_shapes_and_types(images: Path) -> None:
    """The batch would not be what the preprocessor reads."""
    sample = UnlabelledImages(str(images), {**CROPS, "local_crop": dict(size=(16, 24))})[0, 0]
    assert sample.pop("faults") == ""
    shapes = {key: (tuple(value.shape), value.dtype) for key, value in sample.items()}
    assert shapes == {
        "global_crops": ((2, 3, 32, 32), torch.uint8),
        "global_parameters": ((2, len(PARAMETERS)), torch.float32),
        "local_crops": ((3, 3, 16, 24), torch.uint8),
        "local_parameters": ((3, len(PARAMETERS)), torch.float32),
        "seed": ((), torch.int64),
        "index": ((), torch.int64),
    }
    without = UnlabelledImages(str(images), {**CROPS, "local_count": 0})[0, 0]
    assert without["local_crops"].shape == (0, 3, 16, 16) and without["local_parameters"].shape == (0, 9)
    assert torch.equal(
        without["global_parameters"], UnlabelledImages(str(images), CROPS)[0, 0]["global_parameters"]
    )


def test_dinos_crops_are_the_default() -> None:
    """A config that names nothing would train with other crops than DINO's."""
    crops = MultiCrop()
    assert len(crops.global_crops) == 2 and crops.local_count == 8
    assert (crops.local_crop.size, crops.local_crop.scale) == (96, (0.05, 0.4))
    assert crops.global_crops[0] == CropRecipe(
        224, (0.4, 1.0), (3 / 4, 4 / 3), 0.5, (0.4, 0.4, 0.2, 0.1), 0.8, 0.2, 1.0, (0.1, 2.0), 0.0
    )
    with pytest.raises(ValueError, match="one size"):
        MultiCrop(global_crops=[dict(size=32), dict(size=64)])


def test_boxes_follow_torchvisions_rule() -> None:
    """Crops would be too large, too long, or cluster in the middle of the image."""
    boxes = random_boxes(400, 300, (CropRecipe(scale=(0.05, 0.4)),) * 4000, drawn(4000, BOX_DRAWS))
    left, top, width, height = boxes.T
    assert (left >= 0).all() and (top >= 0).all()
    assert (
        (left + width <= 400).all()
        and (top + height <= 300).all()
        and (width > 0).all()
        and (height > 0).all()
    )
    share, ratio = width * height / 120_000, np.log(width / height)
    assert 0.045 < share.min() and share.max() < 0.405
    assert abs(share.mean() - 0.225) < 5 * 0.35 / math.sqrt(12 * 4000)
    limit = math.log(4 / 3)
    assert np.abs(ratio).max() < limit + 0.05
    assert abs(ratio.mean()) < 5 * 2 * limit / math.sqrt(12 * 4000) + 0.005
    for start, room in ((left, 400 - width), (top, 300 - height)):
        place = start / room
        assert abs(place.mean() - 0.5) < 5 / math.sqrt(12 * 4000) + 0.005
        assert np.histogram(place, 4, (0, 1))[0].min() > 800


@pytest.mark.parametrize(
    ("width", "height", "box"), [(1000, 10, (493, 0, 13, 10)), (10, 1000, (0, 493, 10, 13))]
)
def test_long_images_give_their_middle(width: int, height: int, box: tuple[int, ...]) -> None:
    """A panorama would be squeezed into a square, or end in an endless search."""
    recipes = CropRecipe(scale=(1.0, 1.0)), CropRecipe(scale=(0.001, 0.001))
    boxes = random_boxes(width, height, recipes, drawn(2, BOX_DRAWS))
    assert tuple(boxes[0]) == box and max(boxes[1, 2:]) < 10  # the other is not touched


@pytest.mark.parametrize("size", [(400, 300), (300, 900), (64, 64), (37, 5)])
@pytest.mark.parametrize(
    "recipe", [CropRecipe(), CropRecipe(scale=(0.05, 0.4)), CropRecipe(ratio=(0.2, 0.9))]
)
def test_boxes_are_distributed_as_torchvisions(size: tuple[int, int], recipe: CropRecipe) -> None:
    """Crops would be another augmentation than the recipe's, in a way that no limit shows."""
    torch.manual_seed(1)
    image = Image.new("RGB", size)
    theirs = [RandomResizedCrop.get_params(image, [*recipe.scale], [*recipe.ratio]) for _ in range(3000)]
    top, left, height, width = np.array(theirs).T
    ours = random_boxes(*size, (recipe,) * 3000, drawn(3000, BOX_DRAWS)).T
    for mine, other in zip(
        [*ours, ours[2] * ours[3]], [left, top, width, height, width * height], strict=True
    ):
        assert ks_2samp(mine, other).pvalue > 1e-3


def coordinates(width: int, height: int) -> Tensor:
    """Red is the column, green the row: [3, height, width] uint8."""
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    return torch.from_numpy(np.stack([columns, rows, np.zeros_like(rows)]).astype(np.uint8))


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_crop_shows_its_box(flip: float) -> None:
    """Boxes would be cut transposed or elsewhere, or the flip mirror another axis."""
    recipe = CropRecipe(size=(20, 30), scale=(0.2, 0.3), flip=flip)
    for seed in range(20):
        crops = one_crop(recipe)
        plan = crops.plan(200, 150, drawn(1, DRAWS, seed))
        left, top, width, height = plan.boxes[0].tolist()
        pixels = crops.cut(coordinates(200, 150), plan)["global_crops"][0].double()
        assert pixels.shape == (3, 20, 30)
        columns = left + (torch.arange(30) + 0.5) * width / 30 - 0.5
        rows = top + (torch.arange(20) + 0.5) * height / 20 - 0.5
        columns = columns.flip(0) if flip else columns
        inner = (slice(2, -2), slice(2, -2))  # the last rows and columns mix with pixels beyond the box
        assert (pixels[0] - columns)[inner].abs().max() < 1.5
        assert (pixels[1] - rows[:, None])[inner].abs().max() < 1.5


def test_flips_half_of_the_crops() -> None:
    """Crops would never or always be mirrored."""
    many = MultiCrop([CropRecipe(size=8)] * 400, CropRecipe(size=8), 0)
    crops = many.cut(coordinates(64, 64), many.plan(64, 64, drawn(400, DRAWS)))["global_crops"].double()
    flipped = sum(bool(crop[0, :, 0].mean() > crop[0, :, -1].mean()) for crop in crops)
    assert abs(flipped - 200) < 5 * 10


def test_parameters_have_their_ranges_and_shares() -> None:
    """Colours would be drawn from other ranges, or one switch would decide two changes."""
    recipe = CropRecipe(blur_probability=0.5, solarize_probability=0.2)
    found = torch.from_numpy(color_parameters((recipe,) * 4000, drawn(4000, len(PARAMETERS) + 1))).double()
    column = dict(zip(PARAMETERS, found.T, strict=True))
    ranges = {"brightness": (0.6, 1.4), "contrast": (0.6, 1.4), "saturation": (0.8, 1.2), "hue": (-0.1, 0.1)}
    blurred = column["sigma"] > 0
    spans = [(column[name], *ranges[name]) for name in ranges] + [(column["sigma"][blurred], 0.1, 2.0)]
    for values, low, high in spans:
        assert low - 1e-6 <= values.min() and values.max() <= high + 1e-6
        deviation = (high - low) / math.sqrt(12 * len(values))
        assert abs(values.mean() - (low + high) / 2) < 5 * deviation
        assert kstest(values, "uniform", (low, high - low)).pvalue > 1e-3
    switches = {"jitter": 0.8, "grey": 0.2, "sigma": 0.5, "solarize": 0.2}
    for name, share in switches.items():
        count = (column[name] > 0).sum()
        assert abs(count - 4000 * share) < 5 * math.sqrt(4000 * share * (1 - share)), name
    correlation = torch.corrcoef((found[:, 5:] > 0).double().T).fill_diagonal_(0)
    assert correlation.abs().max() < 5 / math.sqrt(4000)
    assert set(column["order"].tolist()) == set(map(float, range(24)))


def test_pixels_are_pillows() -> None:
    """Crops would be resized without a filter, or shifted by half a pixel."""
    rng = np.random.default_rng(3)
    image = Image.fromarray(rng.integers(0, 256, (90, 120, 3), np.uint8)).resize(
        (240, 180), Image.Resampling.BICUBIC
    )
    crops = MultiCrop([CropRecipe(size=(24, 40), flip=0.0)] * 20, CropRecipe(), 0)
    plan = crops.plan(240, 180, drawn(20, DRAWS))
    for pixels, (left, top, width, height) in zip(
        crops.cut(pixels_of(image), plan)["global_crops"], plan.boxes, strict=True
    ):
        box = (left, top, left + width, top + height)
        theirs = np.asarray(image.crop(box).resize((40, 24), Image.Resampling.BICUBIC), np.int16)
        assert np.abs(pixels.permute(1, 2, 0).numpy() - theirs).max() <= 1


def test_a_large_photograph_is_decoded_at_a_part_of_its_size(tmp_path: Path) -> None:
    """Its crops would lie elsewhere, be enlarged, or take the time of all its pixels."""
    columns, rows = np.meshgrid(np.linspace(0, 250, 1601), np.linspace(0, 250, 1203))
    Image.fromarray(np.stack([columns, rows, 0 * rows], 2).astype(np.uint8)).save(
        tmp_path / "a.jpg", quality=95
    )
    sizes: set[tuple[int, int]] = set()
    for size, reduced in ((32, True), (600, False)):
        data = UnlabelledImages(
            str(tmp_path), {"global_crops": [dict(size=size, flip=0.0)] * 2, "local_count": 0}, seed=4
        )
        draws = np.random.default_rng(1).random((2, DRAWS))
        plan, image, *_ = data.read(0, draws)
        assert image is not None and plan.size == (1601, 1203) and (image.shape[2] < 1601) == reduced
        sizes.add((image.shape[2], image.shape[1]))
        for pixels, (left, top, width, height) in zip(
            data.crops.cut(image, plan)["global_crops"].double(), plan.boxes, strict=True
        ):
            center = left + width / 2, top + height / 2
            expected = [center[0] / 1600 * 250, center[1] / 1202 * 250]
            found = pixels[:2, size // 2 - 1 : size // 2 + 1, size // 2 - 1 : size // 2 + 1].mean((1, 2))
            assert found.tolist() == pytest.approx(expected, abs=2.5)
    assert sizes == {(201, 151), (1601, 1203)}


def test_no_crop_is_enlarged_or_empty_where_the_image_is_decoded_smaller() -> None:
    """The smallest local crop would be made of fewer pixels than it has, or of none."""
    crops = MultiCrop([CropRecipe(size=20)], CropRecipe(size=12, scale=(0.01, 0.4)), 6)
    seen = set()
    for seed in range(200):
        plan = crops.plan(800, 500, drawn(7, DRAWS, seed))
        seen.add(crops.reduction(plan))
        room = (plan.boxes[:, 2:] / np.array([[20]] + [[12]] * 6)).min()
        assert crops.reduction(plan) <= room
        width, height = (-(-side // crops.reduction(plan)) for side in plan.size)  # as libjpeg rounds
        left, top, right, bottom = plan.boxes_in(width, height).T
        assert (left < right).all() and (top < bottom).all() and min(left.min(), top.min()) >= 0
        assert right.max() <= width and bottom.max() <= height
    assert seen == {4, 8}
    one = CropPlan((800, 500), np.array([[799, 499, 1, 1]]), np.array([False]), np.zeros((1, 9), np.float32))
    assert one.boxes_in(100, 63).tolist() == [[99, 62, 100, 63]]


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "CMYK"])
def test_every_colour_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    """A grey or transparent image would crash the collation of its batch."""
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    Image.new("RGB", (9, 6), (204, 204, 204)).convert(mode).save(path)
    image = read_rgb(path)
    assert image.mode == "RGB" and image.size == (9, 6) and image.getpixel((0, 0)) == (204, 204, 204)


def test_broken_image_is_named(tmp_path: Path) -> None:
    """The run would stop without the name of the file, or train on a grey half."""
    path = tmp_path / "broken.jpg"
    Image.new("RGB", (64, 64), (10, 200, 30)).save(path)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(UserError, match=r"broken\.jpg.*another image under its name"):
        read_rgb(path)


def test_class_folders(tmp_path: Path) -> None:
    """Labels would belong to other images; a folder without classes would give an empty k-NN."""
    for name, count in (("b", 2), ("a", 1)):
        (tmp_path / name).mkdir()
        for index in range(count):
            Image.new("RGB", (4, 4)).save(tmp_path / name / f"{index}.png")
    paths, labels, names = class_folders(tmp_path)
    assert [Path(path).relative_to(tmp_path).as_posix() for path in paths] == [
        "a/0.png",
        "b/0.png",
        "b/1.png",
    ]
    assert labels.tolist() == [0, 1, 1] and names == ["a", "b"]
    with pytest.raises(UserError, match="CLASS"):
        class_folders(tmp_path / "a")

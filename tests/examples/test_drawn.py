"""The demonstration's scenes: a function of seed, part and index alone, with classes that fit the picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from examples.quickstart import drawn
from examples.quickstart.street_scenes import LOOKS
from examples.quickstart.street_things import render


def test_scenes_depend_on_seed_part_and_index_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two machines, or one and three workers, would measure on different scenes under one seed."""
    monkeypatch.setattr("os.cpu_count", lambda: 3)
    many = drawn.draw(7, "labelled", 48)  # by three workers
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    few = drawn.draw(7, "labelled", 3)
    assert (many.images[:3] == few.images).all() and (many.labels[:3] == few.labels).all()
    assert few.images.shape == (3, 128, 256, 3) and few.labels.shape == (3, 128, 256)
    assert (many.first(3).labels == few.labels).all() and len(many.first(3)) == 3


def test_seeds_and_parts_differ() -> None:
    """Validation scenes that a head was fitted on, or a judging seed that is a choosing seed."""
    pictures = [drawn.draw_one(seed, part, 0)[0].tobytes() for seed in (1, 11) for part in drawn.PARTS]
    assert len(set(pictures)) == 6


def test_only_validation_has_the_looks_of_validation() -> None:
    """The page says that the colours and periods of validation occur in no scene a network or a head has seen."""
    looks = {part: look for part, (_, look) in drawn.PARTS.items()}
    assert looks == {"unlabelled": "train", "labelled": "train", "val": "val"} and set(LOOKS) == {
        "train",
        "val",
    }


def test_classes_are_those_of_the_drawing() -> None:
    """A road would be scored as a bicycle."""
    image, labels = drawn.draw_one(5, "val", 2)
    expected, train_ids, _ = render(np.random.default_rng([5, 4, 2]), "val", 128, 256)
    assert (image == expected).all()
    names = {0: "road", 1: "sidewalk", 2: "building", 8: "vegetation", 10: "sky", 11: "person", 13: "car"}
    names |= {14: "truck", 15: "bus", 18: "bicycle"}
    for train_id in np.unique(train_ids):
        found = {drawn.CLASSES[index] for index in np.unique(labels[train_ids == train_id])}
        assert found == {names[int(train_id)]}


def test_photos_are_the_unlabelled_scenes(tmp_path: Path) -> None:
    """The command of the card would draw other pictures than the demonstration pretrains on."""
    drawn.main([str(tmp_path / "photos"), "--seed", "3", "--count", "2"])
    files = sorted(path.relative_to(tmp_path / "photos") for path in (tmp_path / "photos").rglob("*.*"))
    assert files == [Path("000/street_000000.jpg"), Path("000/street_000001.jpg")]
    jpeg = np.asarray(Image.open(tmp_path / "photos" / files[1]), float)
    assert np.abs(jpeg - drawn.draw_one(3, "unlabelled", 1)[0]).mean() < 8

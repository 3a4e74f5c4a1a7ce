"""What lies in the place of a missing part of a data set is said, in the tools as before a training."""

from __future__ import annotations

from pathlib import Path

import pytest

from mst_pretrain.runtime.errors import UserError
from mst_transfer.data.coco_file import read_coco
from mst_transfer.data.missing import need_folder, there_instead
from mst_transfer.data.prepare import prepare

CASES: dict[str, tuple[tuple[str, ...], str, str]] = {  # files there, what is missing, what is said
    "CVAT": (
        ("annotations/instances_default.json",),
        "annotations/a.json",
        "; found annotations/instances_default.json",
    ),
    "ADE20K": (("images/training/a.jpg", "images/x.txt"), "images/train", "; found images/training"),
    "a level too high": (("own/annotations/a.json",), "annotations/a.json", "; it lies in {root}/own"),
    "a folder inside of itself": (("train/train/a.jpg",), "train/train2017", "; found train/train"),
    "an archive": (("train2017.zip", "a.jpg"), "train2017", "; found {name}/train2017.zip"),
    "no folder of labels": (("masks/a.png", ".git/config"), "labels/train", "; found {name}/masks"),
    "nothing": ((), "labels/train", ""),
    "two levels missing": (("masks/a.png",), "a/b/labels", ""),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_there_instead(tmp_path: Path, name: str) -> None:
    """A user would look for the archive of another data set, though the folder has only another name."""
    files, missing, said = CASES[name]
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    said = said.format(root=tmp_path, name=tmp_path.name)
    assert there_instead(tmp_path / missing) == said
    place = tmp_path / missing
    with pytest.raises(UserError) as error:
        read_coco(place) if place.suffix else need_folder(place, "a folder")
    assert f"does not exist{said}. Check the" in str(error.value)


def test_the_current_folder_is_not_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the data root is not there, a list of the project's own folders would explain nothing."""
    (tmp_path / "configs").mkdir()
    monkeypatch.chdir(tmp_path)
    assert there_instead(Path("data/coco")) == there_instead(tmp_path / "coco") == ""


def test_prepare_names_what_is_there(tmp_path: Path) -> None:
    """A set of one's own that lies a level deeper would be sought in COCO's archives."""
    (tmp_path / "own/train2017").mkdir(parents=True)
    (tmp_path / "images/training").mkdir(parents=True)
    findings, _ = prepare("coco", tmp_path, any_count=True)
    first = findings.problems[0]
    assert first.what == f"does not exist; it lies in {tmp_path / 'own'}" and "ln -s" in first.remedy
    findings, _ = prepare("pair", tmp_path, any_count=True, classes=3)
    assert findings.problems[0].what == "does not exist; found images/training"

"""Ids of images and categories in predicted results."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mst_pretrain.runtime.errors import UserError
from mst_transfer.prediction.coco_ids import category_ids, image_ids, read_ids


def test_categories_are_found_by_name() -> None:
    """Annotations in another order than the model's classes would be refused, though names decide, or swap ids."""
    content = {"categories": [{"id": 4, "name": "bus"}, {"id": 2, "name": "dog"}, {"id": 9, "name": "car"}]}
    assert category_ids(["car", "bus"], content, "a.json") == [9, 4]
    with pytest.raises(UserError, match=r"a\.json has no category 'cat' \(1 of 2"):
        category_ids(["car", "cat"], content, "a.json")


def content(*names: str) -> dict[str, list[dict[str, object]]]:
    return {"images": [{"id": number, "file_name": name} for number, name in enumerate(names, 1)]}


@pytest.mark.parametrize(
    ("names", "paths", "ids"),
    [
        (("a/1.jpg", "b/1.jpg"), ["/x/a/1.jpg"], [1]),
        (("a/1.jpg", "b/1.jpg"), ["/x/b/1.jpg", "/x/a/1.jpg"], [2, 1]),
        (("1.jpg", "b/1.jpg"), ["/x/b/1.jpg", "/x/1.jpg"], [2, 1]),
        (("1.jpg", "b/1.jpg"), ["/x/a/1.jpg"], [1]),  # b/1.jpg has another folder
        (("val2017/a/1.jpg", "val2017/b/1.jpg", "2.jpg"), ["b/1.jpg", "/y/2.jpg"], [2, 3]),
        (("val2017/1.jpg",), ["/elsewhere/1.jpg"], [1]),  # a base name that is there once
    ],
)
def test_images_are_found_by_the_longest_end_of_their_path(
    names: tuple[str, ...], paths: list[str], ids: list[int]
) -> None:
    """Where base names repeat, predictions would be scored against another image's annotations."""
    assert image_ids([Path(path) for path in paths], content(*names), "a.json") == ids


@pytest.mark.parametrize(
    ("names", "ids"),
    [
        (("000000000139.jpg", "000000000025.jpg"), [139, 25]),
        (("a/1.jpg", "b/001.jpg"), [1, 2]),  # one number, two images
        (("7.jpg", "seven.jpg"), [1, 2]),
    ],
)
def test_ids_without_annotations(names: tuple[str, ...], ids: list[int]) -> None:
    """Results could not be scored against COCO's own annotations, or two images would share an id."""
    assert image_ids([Path(name) for name in names], None, "a.json") == ids


def test_an_image_that_may_be_two_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One of two images of one name would be taken by chance, or one id be given to two files."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UserError, match=r"1\.jpg may be 'a/1.jpg' \(id 1\) or 'b/1.jpg' \(id 2\) of a\.json\. Put"
    ):
        image_ids([Path("1.jpg")], content("a/1.jpg", "b/1.jpg"), "a.json")
    with pytest.raises(UserError, match=r"c/1\.jpg and d/1\.jpg would both be 'a/1\.jpg' \(id 1\)"):
        image_ids([Path("c/1.jpg"), Path("d/1.jpg")], content("a/1.jpg"), "a.json")
    with pytest.raises(UserError, match=r"a\.json has no image '2\.jpg' \(1 of 2"):
        image_ids([Path("1.jpg"), Path("2.jpg")], content("1.jpg"), "a.json")


def test_ids_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    """The tool would end in a traceback after the model was loaded."""
    image = {"id": "one", "file_name": "1.jpg", "height": 4, "width": 4}
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"images": [image], "categories": [{"id": 1, "name": "car"}]}))
    with pytest.raises(UserError, match=r"a\.json: 1 ids of 'images' .*: 'one'"):
        read_ids(path)

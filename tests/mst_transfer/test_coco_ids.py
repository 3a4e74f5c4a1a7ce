"""Ids of images and categories in predicted results."""

from __future__ import annotations

import pytest

from mst_pretrain.errors import UserError
from mst_transfer.prediction.coco_ids import category_ids


def test_categories_are_found_by_name() -> None:
    """Annotations in another order than the model's classes would be refused, though names decide, or swap ids."""
    content = {"categories": [{"id": 4, "name": "bus"}, {"id": 2, "name": "dog"}, {"id": 9, "name": "car"}]}
    assert category_ids(["car", "bus"], content, "a.json") == [9, 4]
    with pytest.raises(UserError, match=r"a\.json has no category 'cat' \(1 of 2"):
        category_ids(["car", "cat"], content, "a.json")

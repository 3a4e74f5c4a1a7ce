"""Mutators of COCO files: which images and objects there are, and which are marked to be ignored or as crowds."""

import random
from typing import Any

from tests.promises.coco_edits import (
    drop,
    on_all,
    on_apart,
    on_some,
    put,
)
from tests.promises.coco_set import used_counts
from tests.promises.verdicts import CocoChange, CocoMutator, Content


def _object_twice(content: Content, rng: random.Random) -> None:
    for index, entry in enumerate(rng.sample(content["annotations"], rng.randint(1, 6))):
        content["annotations"].append(dict(entry, id=5_000 + index))


def _image_dropped(content: Content, rng: random.Random) -> None:
    gone = {image["id"] for image in rng.sample(content["images"], rng.randint(1, 4))}
    content["images"] = [i for i in content["images"] if i["id"] not in gone]
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] not in gone]


def _image_emptied(content: Content, rng: random.Random) -> None:
    gone = {image["id"] for image in rng.sample(content["images"], rng.randint(1, 4))}
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] not in gone]


def _objects_dropped(content: Content, rng: random.Random) -> None:
    gone = {a["id"] for a in rng.sample(content["annotations"], rng.randint(1, 3))}
    content["annotations"] = [a for a in content["annotations"] if a["id"] not in gone]


def _marked(key: str, value: Any) -> CocoChange:
    return on_apart(put(key, value))


USE_MUTATORS = (
    CocoMutator(
        "object-twice-under-two-ids",
        "different",
        "Two annotators may have drawn the same box; the file says two objects, and so does the printed count.",
        _object_twice,
        counts=used_counts,
    ),
    CocoMutator(
        "images-left-out", "different", "A smaller set is a valid set.", _image_dropped, counts=used_counts
    ),
    CocoMutator(
        "images-without-objects",
        "different",
        "A picture without objects is valid; the config's filter leaves it out of training, which must be counted.",
        _image_emptied,
        counts=used_counts,
    ),
    CocoMutator(
        "objects-left-out", "different", "A smaller set is a valid set.", _objects_dropped, counts=used_counts
    ),
    CocoMutator(
        "some-objects-ignored",
        "different",
        "VisDrone and others mark regions with ignore; mmdet leaves them out of training, which must be counted.",
        _marked("ignore", 1),
        counts=used_counts,
    ),
    CocoMutator(
        "all-objects-ignored",
        "refused",
        "mmdet would train on no object at all and end without an error.",
        on_all("annotations", put("ignore", 1)),
    ),
    CocoMutator(
        "ignore-zero",
        "same",
        "A flag that says no changes nothing.",
        on_some("annotations", put("ignore", 0)),
    ),
    CocoMutator(
        "some-objects-crowd",
        "different",
        "A crowd is valid: it is ignored in training and forgiven in the test, which must be counted.",
        _marked("iscrowd", 1),
        counts=used_counts,
    ),
    CocoMutator(
        "crowd-true",
        "different",
        "JSON's true is 1 in every library, so these are crowds.",
        _marked("iscrowd", True),
        counts=used_counts,
    ),
    CocoMutator(
        "all-objects-crowd",
        "refused",
        "Nothing would be trained and nothing scored.",
        on_all("annotations", put("iscrowd", 1)),
    ),
    CocoMutator(
        "crowd-false",
        "same",
        "JSON's false is 0 in every library.",
        on_some("annotations", put("iscrowd", False)),
    ),
    CocoMutator(
        "crowd-float",
        "same",
        "pandas writes 0.0, which is 0 in every library.",
        on_some("annotations", put("iscrowd", 0.0)),
    ),
    CocoMutator(
        "crowd-missing",
        "repaired",
        "Most converters leave it out and mean 0.",
        on_some("annotations", drop("iscrowd")),
    ),
    CocoMutator(
        "crowd-null",
        "repaired",
        "An empty cell means that nobody marked a crowd.",
        on_some("annotations", put("iscrowd", None)),
    ),
    CocoMutator(
        "crowd-text-zero",
        "repaired",
        'A spreadsheet wrote "0", which Python takes for true: every object would become a crowd.',
        on_some("annotations", put("iscrowd", "0")),
    ),
    CocoMutator(
        "crowd-two",
        "refused",
        "The format knows 0 and 1; what 2 means is known to whoever wrote it.",
        on_some("annotations", put("iscrowd", 2)),
    ),
)

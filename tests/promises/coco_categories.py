"""Mutators of COCO files: names and order of categories."""

import random

from tests.promises.coco_edits import drop, on_some
from tests.promises.coco_set import used_counts
from tests.promises.verdicts import CocoChange, CocoMutator, Content


def _unused(content: Content, rng: random.Random) -> None:
    content["categories"].append({"id": 9, "name": "ring", "supercategory": "shape"})


def _root(content: Content, rng: random.Random) -> None:
    content["categories"].insert(0, {"id": 0, "name": "shapes", "supercategory": "none"})


def _left_out(content: Content, rng: random.Random) -> None:
    _unused(content, rng)
    discs = [a for a in content["annotations"] if a["category_id"] == 2]
    for annotation in rng.sample(discs, rng.randint(1, 6)):
        annotation["category_id"] = 9


def _categories_reversed(content: Content, rng: random.Random) -> None:
    content["categories"].reverse()


def _disc_named(name: object) -> CocoChange:
    """Returns a change that gives the category disc another name."""

    def change(content: Content, rng: random.Random) -> None:
        content["categories"][1]["name"] = name

    return change


CATEGORY_MUTATORS = (
    CocoMutator(
        "category-unused", "same", "A class list of a larger project; the config does not name it.", _unused
    ),
    CocoMutator(
        "category-root", "same", "Roboflow adds a root without objects; the config does not name it.", _root
    ),
    CocoMutator(
        "category-order",
        "repaired",
        "mmdet numbers labels in the file's order, so boxes would be called discs; the names are clear.",
        _categories_reversed,
    ),
    CocoMutator(
        "category-left-out",
        "different",
        "The config names a part of the categories; objects of the others are counted as left out.",
        _left_out,
        counts=used_counts,
    ),
    CocoMutator(
        "category-name-number",
        "repaired",
        'A speed sign: the number 50 can only mean the name "50".',
        _disc_named(50),
        classes=("box", "50"),
    ),
    CocoMutator(
        "category-name-spaces",
        "same",
        "Names of two words are usual.",
        _disc_named("round disc"),
        classes=("box", "round disc"),
    ),
    CocoMutator(
        "category-name-unicode",
        "same",
        "Not every language is English.",
        _disc_named("diské"),
        classes=("box", "diské"),
    ),
    CocoMutator(
        "category-name-space-behind",
        "repaired",
        "A space behind a name is invisible in every editor; no other category has the name.",
        _disc_named("disc "),
    ),
    CocoMutator(
        "category-name-other-case",
        "refused",
        "The config asks for disc and the file has Disc; the message names both.",
        _disc_named("Disc"),
    ),
    CocoMutator(
        "category-name-unknown",
        "refused",
        "The config asks for disc, and without it half of the objects would be lost.",
        _disc_named("circle"),
    ),
    CocoMutator("category-name-null", "refused", "Which category is meant is not known.", _disc_named(None)),
    CocoMutator("category-name-empty", "refused", "Which category is meant is not known.", _disc_named("")),
    CocoMutator(
        "category-name-true",
        "refused",
        "A truth value is not a name (yes and no in a YAML file).",
        _disc_named(True),
        classes=("box", "True"),
    ),
    CocoMutator(
        "category-name-list",
        "refused",
        "Names in two languages; which one is meant is a guess.",
        _disc_named(["disc", "Scheibe"]),
    ),
    CocoMutator(
        "category-name-missing",
        "refused",
        "Which category is meant is not known.",
        on_some("categories", drop("name")),
    ),
    CocoMutator(
        "category-name-repeated",
        "refused",
        "Two categories with one name: mmdet would number them wrongly.",
        _disc_named("box"),
    ),
    CocoMutator(
        "category-name-almost-repeated",
        "refused",
        "Two names that only a space tells apart are one name by accident, or two.",
        _disc_named("box "),
    ),
)

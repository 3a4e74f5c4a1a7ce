"""Mutators of COCO files: ids of annotations, images and categories, and what refers to them."""

import random
from collections.abc import Callable

from tests.promises.coco_edits import (
    convert,
    drop,
    on_all,
    on_some,
    pick,
    put,
    renumber_categories,
    renumber_images,
)
from tests.promises.verdicts import CocoMutator, Content


def _images(function: Callable[[int], object]) -> Callable[[Content, random.Random], None]:
    return lambda content, rng: renumber_images(content, function)


def _categories(function: Callable[[int], object]) -> Callable[[Content, random.Random], None]:
    return lambda content, rng: renumber_categories(content, function)


def _shuffled(content: Content, rng: random.Random) -> None:
    order = rng.sample(range(100, 10_000), 12)
    renumber_images(content, lambda image_id: order[image_id - 1])
    numbers = rng.sample(range(1, 10_000), len(content["annotations"]))
    for annotation, number in zip(content["annotations"], numbers, strict=True):
        annotation["id"] = number


def _from_zero(content: Content, rng: random.Random) -> None:
    for annotation in content["annotations"]:
        annotation["id"] -= 1


def _repeated(content: Content, rng: random.Random) -> None:
    first, *others = rng.sample(content["annotations"], rng.randint(2, 10))
    for annotation in others:
        annotation["id"] = first["id"]


def _entry_twice(content: Content, rng: random.Random) -> None:
    content["annotations"] += [dict(entry) for entry in pick(rng, content["annotations"])]


def _image_entry_twice(content: Content, rng: random.Random) -> None:
    content["images"] += [dict(entry) for entry in pick(rng, content["images"])]


def _image_id_twice(content: Content, rng: random.Random) -> None:
    first, second = rng.sample(content["images"], 2)
    second["id"] = first["id"]


def _file_twice(content: Content, rng: random.Random) -> None:
    """Lists an image again under another id, with half of its objects."""
    for image in pick(rng, content["images"]):
        own = [a for a in content["annotations"] if a["image_id"] == image["id"]]
        content["images"].append(dict(image, id=image["id"] + 500))
        for annotation in own[::2]:
            annotation["image_id"] = image["id"] + 500


def _bool_image_id(content: Content, rng: random.Random) -> None:
    content["images"][0]["id"] = True


def _category_id_twice(content: Content, rng: random.Random) -> None:
    content["categories"][1]["id"] = content["categories"][0]["id"]


ID_MUTATORS = (
    CocoMutator(
        "ids-in-strange-order",
        "same",
        "Ids are names; merged and filtered files have them in any order.",
        _shuffled,
    ),
    CocoMutator(
        "image-ids-beyond-32-bits",
        "same",
        "Ids made of time stamps fit into 64 bits, and every library scores them rightly.",
        _images(lambda number: 2**31 + number),
    ),
    CocoMutator(
        "image-id-zero",
        "same",
        "Many converters count images from 0, and no library minds.",
        _images(lambda n: n - 1),
    ),
    CocoMutator(
        "image-ids-beyond-float64",
        "repaired",
        "faster-coco-eval confuses ids from 2**53 and stops after all was predicted; inside they can be small numbers.",
        _images(lambda number: 2**53 + number),
    ),
    CocoMutator(
        "image-ids-beyond-64-bits",
        "repaired",
        "A time stamp and a counter glued together; only the evaluator cannot hold it, the references are clear.",
        _images(lambda number: 2**63 + number),
    ),
    CocoMutator(
        "image-ids-negative",
        "repaired",
        "faster-coco-eval takes no negative id and pycocotools does; the references are clear.",
        _images(lambda number: -number),
    ),
    CocoMutator(
        "image-ids-as-text",
        "repaired",
        'Spreadsheets and JavaScript write every id as text; "12" can only mean 12.',
        _images(str),
    ),
    CocoMutator(
        "image-references-as-text",
        "repaired",
        'A table program wrote the references as text while the images keep numbers; "12" can only mean image 12.',
        on_some("annotations", convert("image_id", str)),
    ),
    CocoMutator(
        "references-as-whole-floats",
        "same",
        "pandas writes a column with a gap as 3.0, which equals 3 in every library.",
        on_all(
            "annotations",
            lambda a: a.update(image_id=float(a["image_id"]), category_id=float(a["category_id"])),
        ),
    ),
    CocoMutator(
        "image-ids-not-whole",
        "refused",
        "An id of 1.5 is an accident of a spreadsheet, and a library would cut it to the id of another image.",
        _images(lambda number: number + 0.5),
    ),
    CocoMutator(
        "image-ids-are-names",
        "refused",
        "An id that is a name is not COCO's format, and result files with such ids could not be read by others.",
        _images(lambda number: f"scene-{number}"),
    ),
    CocoMutator(
        "image-id-true",
        "refused",
        "A truth value is not an id; which image it means is a guess.",
        _bool_image_id,
    ),
    CocoMutator(
        "image-id-null",
        "refused",
        "Nothing can refer to an image without an id.",
        on_some("images", put("id", None)),
    ),
    CocoMutator(
        "image-id-missing",
        "refused",
        "Nothing can refer to an image without an id.",
        on_some("images", drop("id")),
    ),
    CocoMutator(
        "image-id-of-two-files",
        "refused",
        "Two files under one id: nobody can tell which picture the objects belong to.",
        _image_id_twice,
    ),
    CocoMutator(
        "image-entry-twice",
        "same",
        "Merging overlapping exports repeats an entry with all its values; every library reads it as one image.",
        _image_entry_twice,
    ),
    CocoMutator(
        "one-file-under-two-ids",
        "refused",
        "Each entry would train half of the objects as background; to merge or to choose is the user's call.",
        _file_twice,
    ),
    CocoMutator(
        "image-reference-unknown",
        "refused",
        "Objects of an image that is not listed are objects somebody lost; which picture they are of is not known.",
        on_some("annotations", put("image_id", 99_999)),
    ),
    CocoMutator(
        "image-reference-null",
        "refused",
        "An object of no image cannot be trained, and leaving it out makes an object background.",
        on_some("annotations", put("image_id", None)),
    ),
    CocoMutator(
        "annotation-ids-from-zero",
        "repaired",
        "Roboflow counts from 0, which evaluators read as unmatched.",
        _from_zero,
    ),
    CocoMutator(
        "annotation-ids-missing",
        "repaired",
        "Nothing refers to the id of an annotation, so any number that is free will do.",
        on_some("annotations", drop("id")),
    ),
    CocoMutator(
        "annotation-ids-null",
        "repaired",
        "Nothing refers to the id of an annotation, so any number that is free will do.",
        on_some("annotations", put("id", None)),
    ),
    CocoMutator(
        "annotation-ids-true",
        "repaired",
        "Nothing refers to the id of an annotation, so any number that is free will do.",
        on_some("annotations", put("id", True)),
    ),
    CocoMutator(
        "annotation-ids-as-text",
        "repaired",
        "Some tools write ids of annotations as text; nothing refers to them.",
        on_some("annotations", convert("id", str)),
    ),
    CocoMutator(
        "annotation-ids-are-uuids",
        "repaired",
        "Label Studio names annotations by random text; nothing refers to it.",
        on_all("annotations", convert("id", lambda number: f"a1b2-{number:08x}")),
    ),
    CocoMutator(
        "annotation-ids-whole-floats",
        "repaired",
        "faster-coco-eval refuses 3.0 as the id of an annotation; pandas writes it, and it can only mean 3.",
        on_all("annotations", convert("id", float)),
    ),
    CocoMutator(
        "annotation-ids-negative",
        "repaired",
        "faster-coco-eval scores 0.00 with negative ids and pycocotools does not; nothing refers to them.",
        on_all("annotations", convert("id", lambda number: -number)),
    ),
    CocoMutator(
        "annotation-ids-repeated",
        "repaired",
        "Two exports put together count from 1 twice; both objects are there and nothing refers to their ids.",
        _repeated,
    ),
    CocoMutator(
        "annotation-ids-beyond-float64",
        "same",
        "Ids from 2**53 to 2**63 are scored rightly by both evaluators.",
        on_all("annotations", convert("id", lambda number: 2**53 + number)),
    ),
    CocoMutator(
        "annotation-ids-beyond-64-bits",
        "repaired",
        "faster-coco-eval scores 0.00 with them; nothing refers to the id of an annotation.",
        on_all("annotations", convert("id", lambda number: 2**63 + number)),
    ),
    CocoMutator(
        "annotation-entry-twice",
        "repaired",
        "An entry that is repeated with all its values, its id too, is one object; two would halve the recall.",
        _entry_twice,
    ),
    CocoMutator(
        "category-ids-with-gaps", "same", "COCO's own ids have gaps.", _categories(lambda number: 70 * number)
    ),
    CocoMutator(
        "category-ids-from-zero",
        "same",
        "Category 0 is an id as any other.",
        _categories(lambda number: number - 1),
    ),
    CocoMutator(
        "category-ids-beyond-64-bits",
        "repaired",
        "Hashes as ids: only the evaluator cannot hold them, the references are clear.",
        _categories(lambda number: 2**63 + number),
    ),
    CocoMutator(
        "category-ids-as-text",
        "repaired",
        'A spreadsheet wrote every number as text; "2" can only mean 2.',
        _categories(str),
    ),
    CocoMutator(
        "category-id-of-two-names",
        "refused",
        "Which of the two names an object has is not known.",
        _category_id_twice,
    ),
    CocoMutator(
        "category-id-null",
        "refused",
        "No object can refer to a category without an id, and its objects would be lost.",
        on_some("categories", put("id", None)),
    ),
    CocoMutator(
        "category-reference-unknown",
        "refused",
        "Objects of a category that is not listed would be trained as background.",
        on_some("annotations", put("category_id", 77)),
    ),
    CocoMutator(
        "category-reference-missing",
        "refused",
        "An object without a category cannot be trained, and leaving it out makes it background.",
        on_some("annotations", drop("category_id")),
    ),
)

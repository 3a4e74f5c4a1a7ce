"""What is repaired of a COCO file in memory, because it can mean only one thing; everything else is left as it is."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any, TypeGuard

from .coco_masks import are_numbers, mask_area, mask_fault

MAX_ID = 2**53  # beyond it, float64 confuses neighboring numbers
BOX_SLACK = 1.0  # pixels: tools that count the last pixel end one outside
ROUNDING = 0.1  # pixels: COCO's own boxes are rounded, and are scored as they are
UNSAFE = "below 0 or beyond 2^53"  # which one evaluator or the other cannot hold
LISTS = ("images", "annotations", "categories")
IMAGES = ("images", "categories")  # of a file that may be of images without an object

Entry = dict[str, Any]
Notes = Counter[str]  # what was done, with the number of entries


def repaired(content: Any) -> tuple[Any, list[str]]:
    """Repair what is unambiguous in a parsed COCO file.

    Args:
        content: As parsed; it stays as it is.

    Returns:
        The content with copies of the entries, and one line for each kind of repair, with the number of entries.
    """
    if not isinstance(content, dict):
        return content, []
    content = {**content, **{key: _copies(content[key]) for key in LISTS if key in content}}
    notes: Notes = Counter()
    for key in LISTS:
        _drop_repeated(content, key, notes)
    _drop_group(content, notes)
    images, annotations, categories = (_entries(content.get(key)) for key in LISTS)
    for key, entries in (("images", images), ("categories", categories)):
        for entry in entries:
            _whole(entry, "id", f"ids of {key}", notes)
            if _is_whole(entry.get("id")) and not 0 <= entry["id"] <= MAX_ID:
                notes[f"ids of {key} {UNSAFE}: renumbered inside the evaluation; result files keep them"] += 1
    for image in images:
        for side in ("width", "height"):
            _whole(image, side, "widths and heights of images", notes)
    names = Counter(str(category.get("name")).strip() for category in categories)
    for category in categories:
        name = category.get("name")
        if isinstance(name, str) and name.strip() and name != name.strip() and names[name.strip()] == 1:
            category["name"] = name.strip()
            notes["names of categories with spaces around them: taken without"] += 1
        if isinstance(name, int | float) and are_numbers([name]):
            category["name"] = str(name)
            notes["names of categories that are numbers: taken as text"] += 1
    known = {key: _whole_ids(entries) for key, entries in (("image_id", images), ("category_id", categories))}
    sizes = {image["id"]: image for image in images if _is_whole(image.get("id"))}
    for annotation in annotations:
        for field, ids in known.items():
            _reference(annotation, field, ids, notes)
        _flag(annotation, "iscrowd", notes)
        if "ignore" in annotation:
            _flag(annotation, "ignore", notes)
        _repair_box(annotation, notes)
        _clip_box(annotation, sizes, notes)
        if annotation.get("segmentation"):
            _repair_mask(annotation, notes)
        _repair_area(annotation, sizes, notes)
    _renumber(annotations, notes)
    return content, [f"{count} {what}" for what, count in notes.items() if count]


def _copies(entries: Any) -> Any:
    if not isinstance(entries, list):
        return entries
    return [dict(entry) if isinstance(entry, dict) else entry for entry in entries]


def _entries(entries: Any) -> list[Entry]:
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def _drop_repeated(content: dict[str, Any], key: str, notes: Notes) -> None:
    """An entry that is there again with all its values, its id too, is one entry."""
    entries = content.get(key)
    if not isinstance(entries, list):
        return
    first: dict[Any, Entry] = {}
    kept = []
    for entry in entries:
        number = entry.get("id") if isinstance(entry, dict) else None
        if (
            isinstance(number, int | str)
            and first.setdefault(number, entry) is not entry
            and first[number] == entry
        ):
            notes[f"entries of {key} that are repeated with all their values: taken once"] += 1
        else:
            kept.append(entry)
    content[key] = kept


def _drop_group(content: dict[str, Any], notes: Notes) -> None:
    """Roboflow lists the group of its classes as a class of id 0; without an object, its name may be a class's too."""
    categories, annotations = (_entries(content.get(key)) for key in ("categories", "annotations"))
    names = Counter(str(category.get("name")) for category in categories)
    for category in categories:
        is_group = category.get("id") == 0 and category.get("supercategory") in (None, "none")
        if (
            is_group
            and names[str(category.get("name"))] > 1
            and all(a.get("category_id") != 0 for a in annotations)
        ):
            content["categories"] = [entry for entry in content["categories"] if entry is not category]
            notes["category of id 0 without an object that has the name of another one: left out"] += 1


def _is_whole(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _whole_ids(entries: list[Entry]) -> set[int]:
    return {entry["id"] for entry in entries if _is_whole(entry.get("id"))}


def _number(value: Any) -> Any:
    """The number that a text holds, as an integer where it is whole; everything else as it is."""
    if not isinstance(value, str) or "_" in value:
        return value
    for kind in (int, float):
        try:
            number = kind(value)
        except ValueError:
            continue
        return number if are_numbers([number]) else value
    return value


def _as_whole(value: Any) -> Any:
    """3.0 becomes 3."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _whole(entry: Entry, field: str, what: str, notes: Notes) -> None:
    """A float of a whole number becomes an integer, and so does a text."""
    old = entry.get(field)
    new = _as_whole(_number(old))
    if type(new) is not type(old):
        entry[field] = new
        notes[f"{what} that are not integers: taken as the integers that they stand for"] += 1


def _reference(annotation: Entry, field: str, ids: set[int], notes: Notes) -> None:
    """3.0 and "3" become 3 where an image or category has that id."""
    old = annotation.get(field)
    if _is_whole(old) or not isinstance(old, float | str):
        return
    new = _as_whole(_number(old))
    if _is_whole(new) and new in ids:
        annotation[field] = new
        notes[f"values of {field} that are not integers: taken as the integers that they stand for"] += 1


def _flag(annotation: Entry, field: str, notes: Notes) -> None:
    """Missing or null becomes 0; true, 1.0 and "1" become 1."""
    old = annotation.get(field)
    new = 0 if old is None else int(old) if isinstance(old, bool) else _as_whole(_number(old))
    if type(new) is type(old) or new not in (0, 1):
        return
    annotation[field] = new
    what = "without" if old is None else "with another spelling of 0 or 1 under"
    notes[f"annotations {what} '{field}': taken as " + ("0" if old is None else "that")] += 1


def _repair_box(annotation: Entry, notes: Notes) -> None:
    """Text becomes numbers; a box drawn from another corner is turned round."""
    box = annotation.get("bbox")
    if not isinstance(box, list):
        return
    if any(isinstance(value, str) for value in box):
        box = annotation["bbox"] = [_number(value) for value in box]
        notes["boxes with numbers written as text: read as numbers"] += are_numbers(box)
    if len(box) == 4 and are_numbers(box) and (box[2] < 0 or box[3] < 0):
        x, y, width, height = box
        annotation["bbox"] = [x + min(width, 0), y + min(height, 0), abs(width), abs(height)]
        notes["boxes with a negative width or height: turned round"] += 1


def _clip_box(annotation: Entry, images: dict[int, Entry], notes: Notes) -> None:
    """A box that ends up to a pixel outside its image ends at its edge; what rounding explains stays."""
    box, image_id = annotation.get("bbox"), annotation.get("image_id")
    image = images.get(image_id) if _is_whole(image_id) else None
    if image is None or not isinstance(box, list) or len(box) != 4 or not are_numbers(box):
        return
    width, height = image.get("width"), image.get("height")
    if not _is_whole(width) or not _is_whole(height):
        return
    x, y, right, bottom = box[0], box[1], box[0] + box[2], box[1] + box[3]
    if ROUNDING < max(-x, -y, right - width, bottom - height) <= BOX_SLACK:
        x, y = max(x, 0), max(y, 0)
        annotation["bbox"] = [x, y, min(right, width) - x, min(bottom, height) - y]
        notes["boxes up to a pixel outside their image: cut at its edge"] += 1


def _repair_mask(annotation: Entry, notes: Notes) -> None:
    mask = annotation["segmentation"]
    if isinstance(mask, dict):
        annotation["segmentation"] = _repaired_runs(mask, notes)
    elif isinstance(mask, list):
        annotation["segmentation"] = _repaired_polygons(mask, notes)


def _repaired_runs(mask: Entry, notes: Notes) -> Entry:
    new = {
        key: [_as_whole(_number(v)) for v in mask[key]]
        for key in ("size", "counts")
        if isinstance(mask.get(key), list) and not set(map(type, mask[key])) <= {int}
    }
    if any(value != mask[key] or set(map(type, value)) <= {int} for key, value in new.items()):
        notes["masks whose run lengths or sizes are not integers: taken as the integers they stand for"] += 1
    return {**mask, **new}


def _repaired_polygons(mask: list[Any], notes: Notes) -> list[Any]:
    """Pairs of points become flat lists; a polygon without its outer list gets one; what has no area goes."""
    new = mask
    if len(mask) >= 3 and all(_is_pair(point) for point in mask):
        new = [[value for point in mask for value in point]]
    elif len(mask) >= 6 and not any(isinstance(value, list | dict) for value in mask):
        new = [mask]
    else:
        pairs = [isinstance(part, list) and bool(part) and all(map(_is_pair, part)) for part in mask]
        if any(pairs):
            flat = zip(mask, pairs, strict=True)
            new = [[v for point in part for v in point] if is_pairs else part for part, is_pairs in flat]
    if new is not mask:
        notes["masks whose polygons are not flat lists x, y, x, y, ...: flattened"] += 1
    if any(isinstance(part, list) and any(isinstance(v, str) for v in part) for part in new):
        new = [[_number(value) for value in part] if isinstance(part, list) else part for part in new]
        notes["masks with numbers written as text: read as numbers"] += 1
    flat_parts = [isinstance(p, list) and len(p) < 6 and len(p) % 2 == 0 for p in new]
    if any(flat_parts) and (not all(flat_parts) or not any(new)):
        kept = [part for part, is_flat in zip(new, flat_parts, strict=True) if not is_flat]
        if kept:
            notes["masks with a polygon of less than three points beside others: that polygon left out"] += 1
        new = kept
    return new


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and not any(isinstance(v, list | dict) for v in value)


def _repair_area(annotation: Entry, images: dict[int, Entry], notes: Notes) -> None:
    """An area that is missing, or not positive while the object has one, is that of the mask, else that of the box."""
    old = annotation.get("area")
    if isinstance(old, str):
        annotation["area"] = _number(old)
        notes["areas written as text: read as numbers"] += annotation["area"] is not old
        old = annotation["area"]
    if isinstance(old, float) and math.isnan(old):  # an empty cell of a table
        old = None
    is_number = are_numbers([old])
    if not (old is None or (is_number and old <= 0)):
        return
    box, mask = annotation.get("bbox"), annotation.get("segmentation")
    if not isinstance(box, list) or len(box) != 4 or not are_numbers(box):
        return
    area = float(box[2] * box[3])
    image_id = annotation.get("image_id")
    image = images.get(image_id) if _is_whole(image_id) else None
    height, width = (image.get("height"), image.get("width")) if image else (None, None)
    if mask and _is_whole(height) and _is_whole(width) and mask_fault(mask, height, width) is None:
        area = mask_area(mask, height, width) or area
    if old is not None and area <= 0:
        return
    annotation["area"] = area
    what = "without an area" if old is None else "of area 0 or less"
    notes[f"annotations {what}: that of the mask or, without one, of the box is taken"] += 1


def _renumber(annotations: list[Entry], notes: Notes) -> None:
    """A new number for each annotation whose id is missing, was there before, or is not one from 1 to 2^53.

    COCO's evaluation takes a match with annotation 0 for none, and of two equal ids every reader forgets one.
    """
    seen: set[int] = set()
    unusable = []
    for annotation in annotations:
        number = annotation.get("id")
        if _is_whole(number) and 1 <= number <= MAX_ID and number not in seen:
            seen.add(number)
        else:
            unusable.append(annotation)
    for number, annotation in enumerate(unusable, max(seen, default=0) + 1):
        annotation["id"] = number
    if unusable:
        what = (
            "ids of annotations that are missing, repeated, or not whole numbers from 1 to 2^53: renumbered"
        )
        notes[what] += len(unusable)

"""Training and validation images out of one set: seeded, by class, the same at every call."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import replace
from typing import Any

from .found import DETECTION, PHOTOS, Found, first_names, layout_error

PARTS = ("train", "val")


def split(found: Found, seed: int = 0, share: float = 0.2) -> Found:
    """Keep a share of the training images for validation, so that every class has about this share of its images there.

    Args:
        found: Data without validation images.
        seed: Of the choice.
        share: Of the images, between 0 and 1.

    Returns:
        The same with names for both parts. No image is in both, and none is lost.

    Raises:
        UserError: D12: there are fewer than two images, or validation images already.
        ValueError: ``share`` is not between 0 and 1.
    """
    from mst_transfer.data.coco_file import parsing_once

    if not 0 < share < 1:
        raise ValueError(f"share must lie between 0 and 1, got {share}")
    if found.task == PHOTOS or found.val is not None:
        why = (
            "photos have no labels to validate on"
            if found.task == PHOTOS
            else "it has validation images already"
        )
        raise layout_error("D12", f"{found.root} is not split: {why}.", "Use it as it is.")
    with parsing_once():  # of a COCO file
        return _split(found, seed, share)


def _split(found: Found, seed: int, share: float) -> Found:
    classes = classes_of_images(found)
    if len(classes) < 2:
        raise layout_error(
            "D12",
            f"{found.root} has {len(classes)} labelled images, which cannot be split into training and validation.",
            "Label more images, or give validation images: --val-json FILE --val-images FOLDER.",
        )
    names = dict(zip(PARTS, stratified(classes, seed, share), strict=True))
    parts = {
        name: replace(found.train, name=name, names=tuple(sorted(own)), count=len(own), list=None)
        for name, own in names.items()
    }
    note = (
        f"split by us: {len(names['train'])} images for training and {len(names['val'])} for validation, "
        f"by class, seed {seed}"
    )
    whole = replace(found, train=parts["train"], val=parts["val"], notes=(*found.notes, note))
    scored = {label for name in names["val"] for label in classes[name]}
    seen = {label for some in classes.values() for label in some} - scored
    unscored = [name for place, name in enumerate(found.classes) if {place, name} & seen]
    warnings = list(found.warnings)
    if unscored:
        what = f"{len(unscored)} classes are in none of the validation images of the split, so that they are not scored"
        warnings.append(f"{what}: {first_names(unscored, 8)}")
    return replace(whole, objects=objects_of(whole), warnings=tuple(warnings))


def stratified(classes: Mapping[str, set[Hashable]], seed: int, share: float) -> tuple[list[str], list[str]]:
    """Iterative stratification (Sechidis et al., 2011): the images of the rarest class are dealt out first.

    Args:
        classes: Those in each image, by its name.
        seed: Of the order of the images.
        share: Of the second part.

    Returns:
        The names of both parts; neither is empty, and every class of the second is in the first (of two images or
        more).
    """
    order = sorted(classes)
    random.Random(seed).shuffle(order)
    shares = (1 - share, share)
    counts = Counter(label for some in classes.values() for label in some)
    wanted = [{label: part * count for label, count in counts.items()} for part in shares]
    room = [part * len(order) for part in shares]
    parts: tuple[list[str], list[str]] = ([], [])
    waiting = dict.fromkeys(order)
    while waiting:
        left = Counter(label for name in waiting for label in classes[name])
        rarest = min(left, key=lambda label: (left[label], counts[label], str(label)), default=None)
        for name in [name for name in waiting if rarest is None or rarest in classes[name]]:
            choice = max((0, 1), key=lambda part: (wanted[part].get(rarest, 0.0), room[part], -part))
            parts[choice].append(name)
            room[choice] -= 1
            for label in classes[name]:
                wanted[choice][label] -= 1
            del waiting[name]
    learned = {label for name in parts[0] for label in classes[name]}
    for name in [
        name for name in parts[1] if classes[name] - learned
    ]:  # a class is learned before it is scored
        if classes[name] - learned:
            parts[1].remove(name)
            parts[0].append(name)
            learned |= classes[name]
    for one, other in ((0, 1), (1, 0)):
        if not parts[one]:
            parts[one].append(parts[other].pop())
    return parts


def classes_of_images(found: Found) -> dict[str, set[Hashable]]:
    """The classes in each training image."""
    if found.task == DETECTION:
        content, names = _content(found)
        ids = {image["id"]: image["file_name"] for image in content["images"]}
        classes: dict[str, set[Hashable]] = {name: set() for name in ids.values()}
        for annotation in content["annotations"]:
            name = names.get(annotation["category_id"])
            if name in found.classes and not annotation["iscrowd"]:
                classes[ids[annotation["image_id"]]].add(name)
        return classes
    return {name: set(counts) for name, counts in _pixels_of_images(found).items()}


def _pixels_of_images(found: Found) -> dict[str, Counter[int]]:
    """Pixels of each label in each training map."""
    from mst_pretrain.data.files import in_threads

    from .map_content import UNLABELLED, pixels_by_label, read_map
    from .mask_reading import maps_of

    maps = maps_of(found.train)
    pixels = {}
    for (name, _), content in zip(maps, in_threads(read_map, [path for _, path in maps]), strict=True):
        counts = pixels_by_label(content, found.values, found.colors) if content else Counter[int]()
        del counts[UNLABELLED]
        pixels[name] = counts
    return pixels


def _content(found: Found) -> tuple[dict[str, Any], dict[int, str]]:
    """The COCO file of the training images, those of the part alone, and names of categories by id."""
    from mst_transfer.data.coco_file import read_with_notes
    from mst_transfer.data.coco_repair import IMAGES
    from mst_transfer.data.image_lists import of_images

    assert found.train.annotations is not None
    content, _ = read_with_notes(found.train.annotations, IMAGES)
    content = of_images(content, found.train.names, found.train.annotations)
    return content, {category["id"]: category["name"] for category in content["categories"]}


def objects_of(found: Found) -> dict[str, int]:
    """Objects or pixels of each class in the training images that are left."""
    if found.task == DETECTION:
        from .coco_reading import count_objects

        return count_objects(_content(found)[0], found.classes)
    total: Counter[int] = Counter()
    for counts in _pixels_of_images(found).values():
        total.update(counts)
    return {name: total[label] for label, name in enumerate(found.classes)}

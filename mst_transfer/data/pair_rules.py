"""The rules of images and their label maps: one channel of ids, the image's size, no id beyond the classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mst_pretrain.data.files import BLOCK, first_of, in_threads
from mst_pretrain.runtime.errors import UserError

from .image_rules import dark_problems, remedy_of_tag, size_said, tag_problems
from .layouts import CITYSCAPES_CLASSES, Pairs, cityscapes_pairs, siblings_finder
from .missing import need_folder
from .problems import Problem, stop_at_first
from .reading import Reader, Unusable, label_map_facts, sample, sample_note

IGNORED = 255
IGNORED_16 = 65535  # mmseg keeps the lower 8 bits of a map, in which this is 255
EXCHANGED = "Height and width are exchanged: turn the map as its image was turned, or replace it."
# Where the maps of two classes hold 0 and 255 and nothing else, 255 is the object. A 1 among them would have two
# meanings: it becomes a label that no class has.
OBJECT_255 = {1: 254, IGNORED: 1}


@dataclass(frozen=True)
class LabelRule:
    """The label that mmseg gives to each value of a label map.

    Args:
        classes: Their number; labels are 0..classes-1, and 255 is ignored.
        label_map: Values that the data set exchanges, with what it exchanges them for.
        reduce_zero: mmseg's ``reduce_zero_label``: 0 is ignored, and every other id is lowered by one.
        colors: Red, green, blue and label of each color, of maps of colors.
    """

    classes: int
    label_map: tuple[tuple[int, int], ...] = ()
    reduce_zero: bool = False
    colors: tuple[tuple[int, ...], ...] = ()

    @cached_property
    def labels(self) -> Mapping[int, int]:
        """Label of every value that a map may hold."""
        known, exchanged = {}, dict(self.label_map)
        for value in range(IGNORED + 1):
            lowered = value - 1 if 0 < value < IGNORED else IGNORED
            label = lowered if self.reduce_zero else value
            label = exchanged.get(label, label)
            if label < self.classes or label == IGNORED:
                known[value] = label
        return known | ({IGNORED_16: known[IGNORED]} if IGNORED in known else {})

    @property
    def object_is_255(self) -> bool:
        """255 is the second of two classes."""
        return dict(self.label_map) == OBJECT_255

    def __str__(self) -> str:
        if self.colors:
            return f"a color that is not among the {len(self.colors)} of the classes is counted as id 254"
        if self.object_is_255:
            return "ids are 0 and 255 (the object)"
        ids = [value for value in self.labels if value < IGNORED]
        return f"ids are {ids[0]}..{ids[-1]} and {IGNORED} (ignored)"


@dataclass(frozen=True)
class Meaning:
    """What 255 and 0 are in the label maps of a split.

    Attributes:
        where: The split's folder of label maps, or a checkpoint.
        occurs: There are such pixels.
        is_object: They are the object; else they are ignored.
        reduces_zero: 0 is ignored, and every other id is lowered by one.
    """

    where: str | Path
    occurs: bool
    is_object: bool
    reduces_zero: bool = False


def rule_of_folders(maps: Sequence[Path], classes: int) -> LabelRule:
    """What the values of label maps in a plain folder mean; the contents of at most 2,000 maps decide."""
    return LabelRule(classes, tuple(OBJECT_255.items()) if classes == 2 and _object_is_255(maps) else ())


def _object_is_255(maps: Sequence[Path]) -> bool:
    """Whether they hold 0 and 255 and nothing else; the first map with another value ends the reading."""

    def values(path: Path) -> set[int]:
        try:
            return {IGNORED if value == IGNORED_16 else value for value in label_map_facts(path)[2::3]}
        except (Unusable, OSError):  # the check names it
            return set()

    seen: set[int] = set()
    with closing(in_threads(values, sample(maps))) as found:
        for some in found:
            seen |= some
            if seen - {0, IGNORED}:
                return False
    return seen == {0, IGNORED}


def exchanged_values(values: Mapping[int, int], classes: int) -> dict[int, int]:
    """mmseg's ``label_map`` for values with these labels; every other value that would be a label becomes none."""
    changed = {value: label for value, label in values.items() if value != label}
    return {value: 254 for value in range(classes) if value not in values} | changed


def object_note(names: Sequence[str]) -> str:
    """What is said of two classes whose maps hold 0 and 255 only."""
    return f"label maps hold 0 and 255 only: 0 is {names[0]}, 255 is {names[1]}"


def need_two_classes(where: str, names: Sequence[str]) -> None:
    """Refuse one class alone: a softmax over one class gives it every pixel, whatever the network has learned.

    Raises:
        UserError: There is one class.
    """
    if len(names) == 1:
        raise UserError(
            f"{where}: there is one class, {names[0]}, so that every pixel would be of it. Segmentation needs two: "
            f"write 0 for the background and 1 for {names[0]} into the label maps, and name both: classes = "
            f"('background', {names[0]!r})."
        )


def check_cityscapes(root: str | Path, split: str) -> None:
    """Check one Cityscapes split before a training or a test.

    Raises:
        UserError: A folder or an image is missing, or :func:`pair_problems` finds a problem.
    """
    pairs = _cityscapes(Path(root), split)
    stop_at_first(pair_problems(pairs, LabelRule(len(CITYSCAPES_CLASSES)), Reader(), split))


def pair_problems(pairs: Pairs, rule: LabelRule, reader: Reader, split: str) -> Iterator[Problem]:
    """Problems of images and their label maps: maps that are not there first, then those of the files.

    Args:
        pairs: Images, and the map of each.
        rule: Which values a map may hold.
        reader: Looks at the files: a thorough one at the contents of all maps, another at those of at most 2,000,
            which a log line says.
        split: For progress lines.
    """
    images, maps = pairs
    absent = set()
    for problem in absent_maps(pairs):
        absent.add(problem.path)
        yield problem
    yield from reader.images(f"{split} images", images, sizes=True)
    present = [path for path in maps if path not in absent]
    yield from reader.label_maps(f"{split} label maps", present, rule.colors)
    yield from list(size_problems(images, maps, reader)) or tag_problems(images, reader.facts, "label maps")
    yield from dark_problems(images, reader.facts)
    yield from palette_problems(present, reader)
    deep = [path for path in present if IGNORED_16 in map_values(reader, path)]
    if deep:
        what = f"{len(deep)} of {len(present)} label maps hold {IGNORED_16}, first {deep[0].name}: read as {IGNORED}"
        yield Problem("65535", deep[0].parent, what)
    note = "" if reader.record else sample_note(present)
    for label in present:
        values = map_values(reader, label)
        unknown = [value for value in values if value not in rule.labels]
        if unknown:
            found = f"has {values[unknown[0]]:,} pixels of the unknown id {unknown[0]} (all: [{first_of(unknown)}])"
            yield Problem("unknown id", label, f"{found}; {rule}{note}")


def map_values(reader: Reader, path: Path) -> dict[int, int]:
    """Values of a map whose contents were read, and the number of pixels of each."""
    facts = reader.facts.get(path, [])
    return dict(zip(facts[2::3], facts[3::3], strict=True))


def palette_problems(maps: Sequence[Path], reader: Reader) -> Iterator[Problem]:
    """A color that stands for one id in one map and for another in the next: programs that choose palettes do so."""
    first: dict[int, tuple[int, Path]] = {}
    for path in maps:
        facts = reader.facts.get(path, [])
        colors = facts[4::3]
        for value, color in zip(facts[2::3], colors, strict=True):
            if color < 0 or colors.count(color) > 1:
                continue
            known, other = first.setdefault(color, (value, path))
            if known != value:
                one, two = f"id {value} has the color #{color:06x}", f"which is that of id {known} in {other}"
                yield Problem("palettes", path, f"{one}, {two}; ids are used, not colors")
                return


def label_pixels(maps: Sequence[Path], rule: LabelRule, reader: Reader) -> Counter[int]:
    """Number of pixels of each label, 255 included, in the maps whose contents were read."""
    pixels: Counter[int] = Counter()
    for path in maps:
        for value, count in map_values(reader, path).items():
            if value in rule.labels:
                pixels[rule.labels[value]] += count
    return pixels


def class_problems(
    where: Path, pixels: Mapping[int, int], names: Sequence[str], trains: bool
) -> Iterator[Problem]:
    """Whether there is something to learn, or to score.

    Args:
        where: The folder of the maps.
        pixels: Number of each label's.
        names: Of the classes.
        trains: A training needs two classes, a score one.
    """
    seen = [name for label, name in enumerate(names) if pixels.get(label)]
    if not seen:
        yield Problem("one class", where, "no label map has a pixel of a class (255 is ignored)")
    elif len(seen) == 1 and trains:
        ignored = f" ({pixels[IGNORED]:,} pixels are 255, which is ignored)" if pixels.get(IGNORED) else ""
        yield Problem("one class", where, f"all labelled pixels are of one class, {seen[0]}{ignored}")


def need_one_meaning(first: Meaning, second: Meaning) -> None:
    """Refuse two splits in one of which 255 is the object, and in the other ignored; or 0 a class, and ignored.

    Raises:
        UserError: They are.
    """
    if first.reduces_zero != second.reduces_zero:
        one, other = (first, second) if first.reduces_zero else (second, first)
        what = f"0 is ignored here and 1 is the first class (reduce_zero_label), but 0 is the first in {other.where}"
        stop_at_first([Problem("two meanings of 0", Path(one.where), what)])
    if first.occurs and second.occurs and first.is_object != second.is_object:
        one, other = (first, second) if first.is_object else (second, first)
        what = f"255 is the object here, where maps hold 0 and 255 only, and is ignored in {other.where}"
        stop_at_first([Problem("two meanings of 255", Path(one.where), what)])


def absent_classes(pixels: Mapping[int, int], names: Sequence[str], trains: bool) -> str:
    """A sentence that names the classes without a pixel, or nothing where there are none."""
    absent = [name for label, name in enumerate(names) if not pixels.get(label)]
    what = "nothing is learned of them" if trains else "they are not scored"
    return (
        f"{len(absent)} of {len(names)} classes have no pixel: {', '.join(absent)}; {what}" if absent else ""
    )


def absent_maps(pairs: Pairs) -> Iterator[Problem]:
    """Every image has its label map; a file of its name in another format is named."""
    there, siblings = in_threads(Path.is_file, pairs[1], block=BLOCK), siblings_finder()
    for image, label, found in zip(*pairs, there, strict=True):
        if not found:
            others = siblings(label)
            instead = f" (there is {first_of(others)})" if others else ""
            yield Problem("no label map", label, f"does not exist, the label map of {image}{instead}")


def size_problems(images: Sequence[Path], maps: Sequence[Path], reader: Reader) -> Iterator[Problem]:
    """Maps have the size of their image, where both were read."""
    for image, label in zip(images, maps, strict=True):
        facts, found = reader.facts.get(image), reader.facts.get(label, [])[:2]
        if facts and found and facts[:2] != found:
            size = f"is {found[1]}x{found[0]} (height x width), its image {image} is {size_said(facts)}"
            turn = EXCHANGED if facts[:2] == found[::-1] else ""
            yield Problem("label map size", label, size, remedy_of_tag(facts, found, "label maps") or turn)


def cityscapes_label_maps(root: str | Path, split: str) -> list[Path]:
    """The ``labelTrainIds`` map of each image of a split, in the images' order.

    Raises:
        UserError: The split has no images, or an image has no label map.
    """
    pairs = _cityscapes(Path(root), split)
    stop_at_first(absent_maps(pairs))
    return pairs[1]


def cityscapes_present_classes(root: str | Path, split: str) -> tuple[str, ...]:
    """Names of the classes that have a pixel in the split's label maps (at most 2,000 read), by train id.

    Raises:
        UserError: As :func:`cityscapes_label_maps`, a map cannot be used, or there is not one labelled pixel.
    """
    reader = Reader()
    stop_at_first(reader.label_maps(f"{split} label maps", cityscapes_label_maps(root, split)))
    seen = {index for path in reader.facts for index in map_values(reader, path)}
    present = tuple(name for index, name in enumerate(CITYSCAPES_CLASSES) if index in seen)
    if not present:
        raise UserError(f"{Path(root, 'gtFine', split)} has no pixel of a known class. Check the label maps.")
    return present


def _cityscapes(root: Path, split: str) -> Pairs:
    need_folder(root, "the Cityscapes data root")
    return cityscapes_pairs(root / "leftImg8bit" / split, root / "gtFine" / split)

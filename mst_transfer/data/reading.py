"""Looking at the files of a data set in threads: at their ends before a training, at every pixel to prepare it."""

from __future__ import annotations

import json
import logging
import os
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from mst_pretrain.data.decode import Undecodable, reading, to_rgb
from mst_pretrain.data.files import BLOCK, find_encoded_fault, find_fault, in_threads, is_damage
from mst_pretrain.data.tar_index import index_tar
from mst_pretrain.runtime.errors import UserError
from mst_pretrain.runtime.progress import Progress
from mst_pretrain.runtime.terminal import shown

from .image_rules import Facts, image_header
from .problems import Problem

MAX_READ_MAPS = 2000  # beyond this many, a training reads the contents of a seeded sample of label maps

LOSSY = ("JPEG", "MPO")
State = tuple[int, int]  # size in bytes, time of modification in nanoseconds


class Unusable(Exception):
    """A file that cannot be used; its arguments say why, one each.

    Args:
        reasons: Each without a period at the end.
        kind: Of the problem, a key of :data:`KINDS`.
    """

    def __init__(self, *reasons: str, kind: str = "unusable file") -> None:
        super().__init__(*reasons)
        self.kind = kind


class Record:
    """What was read of files that were found whole, by path, size and time of modification.

    A text file that only grows, one line a file: a run that is killed loses at most its last line. Faulty files are
    not in it, so they are read again.

    Args:
        path: The record, made where it is missing.
        root: Paths below it are kept relative to it, so the data set may move.

    Raises:
        UserError: The record cannot be written.
    """

    def __init__(self, path: Path, root: Path) -> None:
        self.root = Path(os.path.abspath(root))
        self._known: dict[str, tuple[State, Facts]] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(path, "a+", encoding="utf-8", buffering=1)  # noqa: SIM115 (open for the whole run)
        except OSError as error:
            raise UserError(
                f"{path} cannot be written ({error.strerror}). For data that may only be read, name a folder for "
                "what this tool writes: --out DIR"
            ) from error
        self._file.seek(0)
        line = "\n"
        for line in self._file:
            try:
                key, size, modified, facts = json.loads(line)
            except (ValueError, TypeError):  # the torn last line of a killed run
                continue
            self._known[key] = ((size, modified), facts)
        if not line.endswith("\n"):
            self._file.write("\n")

    def find(self, kind: str, path: Path, state: State) -> Facts | None:
        """The facts of a file that has not changed since, or None."""
        known = self._known.get(self._key(kind, path))
        return known[1] if known is not None and known[0] == state else None

    def add(self, kind: str, path: Path, state: State, facts: Facts) -> None:
        """Keep the facts of a whole file."""
        self._file.write(json.dumps([self._key(kind, path), *state, facts]) + "\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _key(self, kind: str, path: Path) -> str:
        whole = Path(os.path.abspath(path))
        return f"{kind} {whole.relative_to(self.root) if whole.is_relative_to(self.root) else whole}"


class Reader:
    """Looks at the images and label maps of a data set, in threads.

    Args:
        record: Of earlier runs. With one, every pixel of every file is decoded, and what stands in the record is not
            read again. Without one, as before a training, only a file's first and last bytes are looked at, and the
            contents of at most :data:`MAX_READ_MAPS` label maps.
        workers: Threads; None: see :func:`in_threads`.

    Attributes:
        facts: What later rules need of each whole file. An image: see :func:`image_header` (empty where sizes were not
            asked for). A label map: see :func:`label_map_facts` (of one whose contents were not read, width and
            height). A shard: the number of images.
        read, unchanged: Files read, and files that the record had.
    """

    def __init__(self, record: Record | None = None, workers: int | None = None) -> None:
        self.record, self.workers = record, workers
        self.facts: dict[Path, Facts] = {}
        self.read, self.unchanged = 0, 0

    def images(self, what: str, paths: Sequence[Path], sizes: bool = False) -> Iterator[Problem]:
        """Look at every image, and yield those that cannot be used.

        Args:
            what: For the progress lines, e.g. "train2017 images".
            paths: The images.
            sizes: They are needed among the facts; with a record they are always there.
        """
        quick = _image_ends_and_size if sizes else _image_ends
        yield from self.look_at(what, paths, image_facts if self.record else quick)

    def label_maps(
        self, what: str, paths: Sequence[Path], colors: Sequence[Sequence[int]] = ()
    ) -> Iterator[Problem]:
        """Look at every label map, and yield those that cannot be used.

        Args:
            what: For the progress lines.
            paths: The maps.
            colors: Red, green, blue and label of each color, of maps of colors; their facts hold labels.
        """
        chosen = set() if self.record else set(sample(paths))

        def quick(path: Path) -> Facts:
            if path not in chosen:
                return _map_ends_and_size(path)
            return color_map_facts(path, colors) if colors else label_map_facts(path)

        yield from self.look_at(what, paths, label_map_facts if self.record else quick)

    def look_at(self, what: str, paths: Sequence[Path], look: Callable[[Path], Facts]) -> Iterator[Problem]:
        """Look at every file that is not in the record, keep its facts, and yield those that cannot be used.

        Args:
            what: For the progress lines.
            paths: Files.
            look: Gives the facts of a whole file, or raises :class:`Unusable`.
        """
        kind, progress = look.__name__, Progress(f"reading {what}", len(paths))

        def visit(path: Path) -> tuple[State, Facts | None, Facts, list[Problem]]:
            try:
                stat = path.stat()
                state = (stat.st_size, stat.st_mtime_ns)
                known = self.record.find(kind, path, state) if self.record else None
                return state, known, known or look(path), []
            except Unusable as error:
                return (0, 0), None, [], [Problem(error.kind, path, why) for why in error.args]
            except OSError as error:
                return (0, 0), None, [], [Problem("unusable file", path, error.strerror or str(error))]

        with closing(in_threads(visit, paths, self.workers, 1 if self.record else BLOCK)) as visits:
            for path, (state, known, found, problems) in zip(paths, visits, strict=True):
                if not problems:
                    self.facts[path] = found
                    if self.record and known is None:
                        self.record.add(kind, path, state, found)
                self.unchanged += known is not None
                self.read += known is None
                progress.step(1)
                yield from problems


def sample(maps: Sequence[Path]) -> Sequence[Path]:
    """The maps whose contents a training reads: all, or 2,000 of them, the same at every call."""
    if len(maps) <= MAX_READ_MAPS:
        return maps
    logging.getLogger(__name__).info("%s", f"Label maps{sample_note(maps)}")
    return sorted(random.Random(0).sample(maps, MAX_READ_MAPS))


def sample_note(maps: Sequence[Path]) -> str:
    """What a message says of maps that were not all read."""
    many = len(maps) > MAX_READ_MAPS
    return f" (contents checked on a sample of {MAX_READ_MAPS} of {len(maps)} maps)" if many else ""


def _image_ends(path: Path) -> Facts:
    _refuse(find_fault(path))
    return []


def _refuse(fault: str) -> None:
    """Raise :class:`Unusable` of a fault that :func:`find_encoded_fault` found, if it found one."""
    if fault:
        raise Unusable(fault, kind="unusable file" if is_damage(fault) else "unsuitable file")


def _image_ends_and_size(path: Path) -> Facts:
    _image_ends(path)
    with _decoding():
        return image_header(path)


def is_lossy(path: Path, image: Image.Image) -> bool:
    """Whether a label map is stored with loss: JPEG, also inside a TIFF, or WebP that is not of the lossless kind."""
    if image.format == "TIFF":
        return image.info.get("compression") in ("jpeg", "tiff_jpeg", "webp")
    return image.format in LOSSY or (image.format == "WEBP" and b"VP8L" not in path.read_bytes())


def _map_ends_and_size(path: Path) -> Facts:
    """Width and height as stored: training does not turn maps."""
    _image_ends(path)
    with _decoding(), Image.open(path) as image:
        width, height = image.size
        stored, tiles, lossy = image.format, str(image.tile), is_lossy(path, image)
    if lossy:
        what = {"WEBP": "lossy WebP", "TIFF": "TIFF with JPEG or WebP inside"}.get(
            str(stored), "JPEG whatever its name"
        )
        raise Unusable(f"is a {what}, which changes ids at every border", kind="label map format")
    for bits in (2, 4):
        if f"'L;{bits}'" in tiles:  # gray of a PNG; Pillow, by which mmseg reads maps, makes it fill 8 bits
            ids = ", ".join(str(index * 255 // (2**bits - 1)) for index in range(3))
            raise Unusable(
                f"is a {bits}-bit PNG, whose ids 0, 1, 2 are read as {ids}", kind="label map format"
            )
    return [width, height]


@contextmanager
def _decoding() -> Iterator[None]:
    """What Pillow's readers raise in the block becomes :class:`Unusable`."""
    try:
        with reading():
            yield
    except Undecodable as error:
        _refuse(error.own_fault or f"not decodable: {error}")


# The names of this and of label_map_facts stand in records: they change with what the facts are.
def image_facts(path: Path) -> Facts:
    """Decode every pixel. What a decoder does not notice (some damage inside a JPEG) stays unnoticed.

    Returns:
        See :func:`image_header`.

    Raises:
        Unusable: Truncated or not decodable.
    """
    _decode(path.read_bytes())
    with _decoding():
        return image_header(path)


def label_map_facts(path: Path) -> Facts:
    """Decode a label map of one channel: gray of 8 or 16 bits, a palette's indices, or one bit (0 and 1).

    Returns:
        Width, height, and of each value in it: the value, the number of its pixels, and its color in the file's palette
        (red, green and blue, 8 bits each, in one number; -1 where there is none).

    Raises:
        Unusable: Truncated, not decodable, not one channel of whole numbers, or one pixel high or wide.
    """
    size = _map_ends_and_size(path)
    with _decoding(), Image.open(path) as image:
        pixels = np.asarray(image)
        palette = np.array(image.getpalette() or [], int).reshape(-1, 3) @ (1 << 16, 1 << 8, 1)
    if pixels.ndim != 2 or pixels.dtype.kind not in "bui":
        raise Unusable(f"is of mode {image.mode}; one channel of ids is expected", kind="label map mode")
    values, counts = np.unique(pixels, return_counts=True)
    colors = dict(enumerate(palette.tolist()))
    found = zip(values.astype(int).tolist(), counts.tolist(), strict=True)
    return [*size, *(fact for value, count in found for fact in (value, count, colors.get(value, -1)))]


def color_map_facts(path: Path, colors: Sequence[Sequence[int]]) -> Facts:
    """Decode a label map of colors.

    Returns:
        As :func:`label_map_facts`, of labels; 254 is a color that none has.

    Raises:
        Unusable: Truncated, or not decodable.
    """
    from .color_maps import read_color_map  # imports mmseg

    size = _map_ends_and_size(path)
    with _decoding():
        labels = read_color_map(path, colors)
    values, counts = np.unique(labels, return_counts=True)
    return [
        *size,
        *(fact for pair in zip(values.tolist(), counts.tolist(), strict=True) for fact in (*pair, -1)),
    ]


def whole_shard(path: Path) -> Facts:
    """Decode every image of a tar shard.

    Returns:
        The number of images.

    Raises:
        Unusable: The shard is damaged, or images in it are: one argument each.
    """
    try:
        index = index_tar(path)
    except UserError as error:
        raise Unusable(str(error)) from error
    faults = []
    with open(path, "rb") as file:
        for name, (offset, size) in zip(index.names, index.images.tolist(), strict=True):
            file.seek(offset)
            try:
                _decode(file.read(size))
            except Unusable as error:
                faults.append(f"{shown(name.decode(errors='replace'))}: {error}")
    if faults:
        raise Unusable(*faults)
    return [len(index.names)]


def _decode(encoded: bytes) -> None:
    _refuse(find_encoded_fault(lambda offset, length: encoded[offset : offset + length], len(encoded)))
    with _decoding():
        to_rgb(encoded)

"""The verdicts that a mutated input can carry, and one frozen dataclass for each kind of mutator.

A verdict says what the user of the tools should see, and it was written before the code that checks data was read:
what is unambiguous is repaired in memory with a printed count, what is harmless for mmdet or mmseg, pycocotools and
faster-coco-eval is the same, and everything else is named and refused. Nothing may be silently wrong.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

Verdict = Literal["same", "warned", "repaired", "refused", "different"]
"""What becomes of a mutated data set.

same: the loaded ground truth (boxes, masks, labels) and the score of fixed predictions are unchanged, and nothing needs
    to be said beyond the line of counts that every run prints.
warned: as same, and a printed warning says what may be wrong with it.
repaired: ground truth and score are those of the clean set, a printed line says what was repaired and how many, and the
    file on disk is left alone.
refused: one UserError before any work, which names the file and the remedy.
different: valid data that differs. It is trained, and the printed counts of what is used are those that `counts` gives.
"""

CheckpointVerdict = Literal["same", "choice", "refused"]
"""What becomes of a checkpoint file.

same: it reads without any option, or with the case's `prefix` where a documented rule takes another network, and the
    weights are bit for bit those of the wanted network.
choice: the file holds two networks. Without an option it is refused by an error that names the choices; with the case's
    `prefix` or `which` it reads bit for bit.
refused: one UserError that is right about what the file is.
"""

Content = dict[str, Any]
Counts = dict[str, int]
State = Mapping[str, Tensor]
CocoChange = Callable[[Content, random.Random], Content | list[Any] | bytes | None]


@dataclass(frozen=True)
class CocoMutator:
    """A change of a COCO instance file, and of the pictures beside it.

    `change` gets a deep copy of the clean content and works in place (returns None), or returns another object to be
    written as JSON, or the raw bytes of the file. `files` then changes the pictures on disk. `classes` are those of the
    config; the label of an object is the index of its category's name in them. `clean_name` maps a file name of the
    changed set to the one of the clean set, so that the loaded images can be paired. `counts` belongs to `different`.
    """

    name: str
    verdict: Verdict
    why: str
    change: CocoChange
    files: Callable[[Path], None] | None = None
    classes: tuple[str, ...] = ("box", "disc")
    clean_name: Callable[[str], str] = str
    counts: Callable[[Content, Content], Counts] | None = None


@dataclass(frozen=True)
class LabelMapMutator:
    """A change of a folder of images and label maps, in place, for a config with the classes ground, box and disc.

    `clean_name` maps the stem of a changed image to the clean one. `counts` belongs to `different`; its keys are
    "images" (used), "classes" (that occur in any map) and "left_out" (files that are not used and must be counted).
    """

    name: str
    verdict: Verdict
    why: str
    change: Callable[[Path, random.Random], None]
    clean_name: Callable[[str], str] = str
    counts: Counts | None = None


@dataclass(frozen=True)
class CheckpointMutator:
    """A checkpoint file made of the state dicts of two networks of one architecture: a is wanted, b is another.

    `make(state_a, state_b, path)` gets a path without a suffix in a folder that exists, and returns what it wrote.
    `expected` turns state a into the float32 weights that must be read, bit for bit. Of a refusal, the message holds at
    least one of the words in `says` (upper and lower case are the same) and advises to copy the file again only if
    `cut` is set.
    """

    name: str
    verdict: CheckpointVerdict
    why: str
    make: Callable[[State, State, Path], Path]
    prefix: str | None = None
    which: Literal["teacher", "student"] | None = None
    expected: Callable[[State], State] = dict
    says: tuple[str, ...] = ()
    cut: bool = False


@dataclass(frozen=True)
class Value:
    """The option is accepted, and the key has this value; a list and a tuple of the same members are equal here."""

    value: object


@dataclass(frozen=True)
class Refused:
    """The option is refused by one UserError that names the key and what is wrong with the value."""


@dataclass(frozen=True)
class NeverIgnored:
    """The value arrives at every key of `at`, or the option is refused; to accept it without effect is wrong."""

    value: object
    at: tuple[str, ...]


@dataclass(frozen=True)
class OptionCase:
    """One text behind `--cfg-options`, tried on `option_mutators.CONFIG`, with what must become of it."""

    name: str
    option: str
    outcome: Value | Refused | NeverIgnored
    why: str

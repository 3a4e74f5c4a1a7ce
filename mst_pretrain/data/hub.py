"""Hugging Face data sets as an image source: ``hf:PATH[@SPLIT][#COLUMN]``."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import UserError
from .files import HEAD_BYTES, TAIL_BYTES, find_fault_in, report_faults

PREFIX = "hf:"
SPEC = re.compile(r"hf:(?P<path>[^@#]+)(@(?P<split>[^#]+))?(#(?P<column>.+))?$")
SAVED = ("state.json", "dataset_dict.json")


class HubSource:
    """The images of one column of one split.

    Args:
        spec: ``hf:`` and a folder written by ``save_to_disk``, or a name on the Hub (fetched, or from its cache);
            ``@split``, by default ``train``; ``#column``, by default the only image column.
        labelled: Also read the only ``ClassLabel`` column.

    Raises:
        UserError: ``datasets`` is not installed, or there is no such data set, split or column.
    """

    def __init__(self, spec: str, labelled: bool = False) -> None:
        found = SPEC.match(spec)
        if found is None:
            raise UserError(f"'{spec}' is not hf:PATH[@SPLIT][#COLUMN]. Correct it.")
        self.spec = spec
        images = _open(spec, found["path"], found["split"] or "train")
        features = images.features
        self.column = found["column"] or _only(spec, features, "Image")
        if self.column not in features:
            raise UserError(
                f"{spec}: no column '{self.column}' (found: {', '.join(features)}). Name one of these."
            )
        self.labels: list[int] | None = None
        self.classes: list[str] = []
        if labelled:
            column = _only(spec, features, "ClassLabel")
            self.labels, self.classes = [int(label) for label in images[column]], list(features[column].names)
        from datasets import Image

        self.images = images.select_columns([self.column]).cast_column(self.column, Image(decode=False))

    def __len__(self) -> int:
        return len(self.images)

    def name(self, index: int) -> str:
        """Data set and row."""
        return f"{self.spec} row {index}"

    def read(self, index: int) -> bytes:
        """The encoded image of a row."""
        cell = self.images[index][self.column]
        if cell is None:
            raise UserError(f"{self.name(index)} has no image. Filter the data set.")
        try:
            return cell["bytes"] if cell["bytes"] is not None else Path(cell["path"]).read_bytes()
        except OSError as error:
            raise UserError(
                f"{self.name(index)} cannot be read ({error}). Make the data set again."
            ) from error

    def check(self) -> None:
        """Look at every image's first and last bytes; decode only where these cannot tell."""
        faults = []
        for index in range(len(self)):
            encoded = self.read(index)
            head, tail = encoded[:HEAD_BYTES], encoded[-TAIL_BYTES:]
            fault = find_fault_in(head, tail, len(encoded), partial(bytes, encoded))
            if fault:
                faults.append(f"{self.name(index)} ({fault})")
        report_faults(faults, len(self))


def _open(spec: str, path: str, split: str) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise UserError(f"{spec} needs the datasets package: pip install 'mst-toolkit[hf]'.") from error
    try:
        if any((Path(path) / name).is_file() for name in SAVED):
            saved = datasets.load_from_disk(path)
            if isinstance(saved, datasets.DatasetDict):
                return saved[split]
            if "@" in spec:
                raise UserError(f"{spec}: {path} was saved as one split. Leave @{split} out.")
            return saved
        return datasets.load_dataset(path, split=split)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{spec} cannot be opened ({error}). Check its path or name, and the split."
        ) from error


def _only(spec: str, features: Any, kind: str) -> str:
    """The one column of a type."""
    columns = [name for name, feature in features.items() if type(feature).__name__ == kind]
    if len(columns) != 1:
        what = (
            f"{len(columns)} columns of type {kind} ({', '.join(columns)})"
            if columns
            else f"no {kind} column"
        )
        raise UserError(
            f"{spec} has {what} among {', '.join(features)}. "
            + ("Name one: #COLUMN." if kind == "Image" and columns else "Cast one to it.")
        )
    return columns[0]

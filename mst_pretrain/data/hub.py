"""Images in a Hugging Face data set (the optional package datasets)."""

from __future__ import annotations

import importlib
import os
import re
import tarfile
from pathlib import Path
from typing import Any

import numpy as np

from ..runtime.errors import UnusableImage, UserError
from ..runtime.terminal import shown
from .files import BLOCK, find_encoded_fault, in_threads, report_faults

PREFIX = "hf:"
SPEC = re.compile(r"hf:(?P<name>[^@#]+)(?:@(?P<split>[^#]+))?(?:#(?P<column>.+))?")
# What datasets raised for missing names and splits and for 200 damaged data sets, beside its own DatasetsError:
# TypeError and LookupError come from its JSON files, TarError from shards
READER_ERRORS = (OSError, ValueError, TypeError, LookupError, tarfile.TarError)


class HubSource:
    """The rows of one split.

    Args:
        spec: ``hf:NAME[@SPLIT][#COLUMN]``. NAME is a folder of ``save_to_disk`` or whatever ``load_dataset``
            takes; SPLIT is ``train`` unless given and may be a slice (``train[:10%]``) for ``load_dataset``; COLUMN
            is needed only where there are several columns of images.
        labelled: Also read the labels: the only ``ClassLabel`` column.

    Raises:
        UserError: datasets is not installed, the data set cannot be loaded, has no such split or column, or no labels.
    """

    def __init__(self, spec: str, labelled: bool = False) -> None:
        match = SPEC.fullmatch(spec)
        if match is None:
            raise UserError(f"'{spec}' cannot be read. Write hf:NAME, hf:NAME@SPLIT or hf:NAME@SPLIT#COLUMN.")
        try:
            library = importlib.import_module("datasets")
        except ImportError as error:
            raise UserError(f"{spec} needs the package datasets. Install it: pip install datasets") from error
        self.spec = spec
        rows = self._load(library, match["name"], match["split"])
        self.column = self._column(rows, library.Image, match["column"])
        self.labels: np.ndarray | None = None
        self.classes: list[str] = []
        if labelled:
            self._read_labels(rows, library.ClassLabel)
        rows = rows.select_columns([self.column]).with_format(None)
        self.rows = rows.cast_column(self.column, library.Image(decode=False))
        if not len(self):
            raise UserError(f"{spec} has no rows. Choose another split.")

    def __len__(self) -> int:
        return len(self.rows)

    def name(self, index: int) -> str:
        """Spec and row."""
        return f"{self.spec} row {index}"

    def read(self, index: int) -> bytes:
        """The encoded file; see :class:`ImageSource`."""
        image = self.rows[int(index)][self.column]
        if image is None:
            raise UnusableImage(f"{self.name(index)} has no image. Filter such rows out.")
        if image["bytes"] is not None:
            return image["bytes"]
        if os.path.exists(image["path"]) and not os.path.isfile(
            image["path"]
        ):  # of a device, no end may come
            raise UnusableImage(
                f"{self.name(index)}: {shown(image['path'])} is not a regular file. Filter it out."
            )
        try:
            return Path(image["path"]).read_bytes()
        except OSError as error:
            raise UnusableImage(
                f"{self.name(index)}: {image['path']} cannot be read ({error.strerror}). Save the data set again with "
                "its images inside (save_to_disk after cast_column)."
            ) from error

    def check(self) -> None:
        """See :func:`find_encoded_fault`."""
        found = in_threads(self._fault, range(len(self)), block=BLOCK)
        faults = [(self.name(index), fault) for index, fault in enumerate(found) if fault]
        report_faults(faults, len(self))

    def _fault(self, index: int) -> str:
        try:
            encoded = self.read(index)
        except UnusableImage as error:
            return str(error)
        return find_encoded_fault(lambda offset, length: encoded[offset : offset + length], len(encoded))

    def _load(self, library: Any, name: str, split: str | None) -> Any:
        folder = Path(name).expanduser()
        saved = any((folder / file).is_file() for file in ("dataset_dict.json", "state.json"))
        try:
            if not saved:
                return library.load_dataset(name, split=split or "train", trust_remote_code=False)
            loaded = library.load_from_disk(str(folder))
        except (*READER_ERRORS, library.exceptions.DatasetsError) as error:
            if isinstance(error.__cause__, MemoryError):  # a DatasetGenerationError stands for anything
                raise
            why = (str(error) or type(error).__name__).splitlines()[0]
            raise UserError(
                f"{self.spec} cannot be loaded ({why}). Check the name and the split; a data "
                "set that needs more arguments can be loaded in Python and saved with save_to_disk."
            ) from error
        if not isinstance(loaded, dict):
            if split is not None:
                raise UserError(f"{folder} holds a single split. Leave @{split} out.")
            return loaded
        if (split or "train") not in loaded:
            raise UserError(f"{self.spec}: no split '{split or 'train'}'. There are: {', '.join(loaded)}.")
        return loaded[split or "train"]

    def _column(self, rows: Any, kind: type, wanted: str | None = None) -> str:
        """The column of a feature type: the wanted one, or the only one."""
        found = [name for name, feature in rows.features.items() if isinstance(feature, kind)]
        if wanted is not None:
            found = [name for name in found if name == wanted]
        if len(found) != 1:
            columns = ", ".join(f"{name} ({type(value).__name__})" for name, value in rows.features.items())
            choice = "Choose one: hf:NAME@SPLIT#COLUMN." if kind.__name__ == "Image" else "Save it with one."
            count = f"{len(found) or 'no'} {kind.__name__} columns{f' {wanted}' if wanted else ''}"
            raise UserError(f"{self.spec}: {count} among {columns}. One is needed. {choice}")
        return found[0]

    def _read_labels(self, rows: Any, kind: type) -> None:
        column = self._column(rows, kind)
        given = rows.with_format(None)[column]
        labels = np.array([-1 if label is None else int(label) for label in given], np.int64)
        if bare := int((labels < 0).sum()):
            raise UserError(f"{self.spec}: {bare} of {len(labels)} rows have no label. Choose another split.")
        self.labels, self.classes = labels, list(rows.features[column].names)

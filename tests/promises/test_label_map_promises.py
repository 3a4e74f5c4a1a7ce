"""Segmentation sets as people have them: trained as the clean set, or refused before work, never silently wrong."""

from __future__ import annotations

import contextlib
import io
import random
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from mmcv import imread
from mmseg.datasets.transforms import LoadAnnotations

from mst_pretrain.runtime.errors import UserError
from mst_transfer.data.datasets import FolderSegmentation
from mst_transfer.data.used_labels import check_labels
from mst_transfer.evaluation.segmentation_scores import confusion_matrix
from tests.promises.label_map_mutators import CLASSES, MUTATORS, clean_pairs
from tests.promises.parameters import as_parameters
from tests.promises.verdicts import LabelMapMutator

OPEN: dict[str, str] = {}  # mutators whose verdict does not hold yet, with the reason


@dataclass(frozen=True, repr=False)
class Outcome:
    """What became of a set: what was printed, the error's message, and the loaded labels by the clean stem."""

    said: str
    refusal: str | None
    labels: dict[str, np.ndarray]


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """The set that all mutators start from, and what becomes of it."""
    root = clean_pairs(tmp_path_factory.mktemp("clean"))
    return root, _outcome(root, str)


@pytest.mark.parametrize("mutator", as_parameters(MUTATORS, OPEN))
@settings(
    derandomize=True,
    max_examples=2,
    deadline=None,
    database=None,
    phases=[Phase.generate],  # smaller seeds are not simpler
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(seed=st.integers(0, 2**16))
def test_label_maps(
    mutator: LabelMapMutator,
    clean: tuple[Path, Outcome],
    tmp_path: Path,
    record: Callable[..., None],
    seed: int,
) -> None:
    """A training would see other classes than were drawn, or leave files out without a word."""
    root = tmp_path / f"set{seed}"
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(clean[0], root)
    mutator.change(root, random.Random(f"{mutator.name} {seed}"))
    files = _contents(root)
    start, found = time.perf_counter(), "traceback"
    try:
        outcome = _outcome(root, mutator.clean_name)
        found = _found(outcome, clean[1])
    finally:
        record("label map", mutator.verdict, found, time.perf_counter() - start)
    said = outcome.refusal or outcome.said
    assert _contents(root) == files
    if mutator.verdict == "refused":
        assert found == "refused" and str(root) in said, said
    elif mutator.verdict == "different":
        counts = mutator.counts or {}
        seen = {int(label) for labels in outcome.labels.values() for label in np.unique(labels)} - {255}
        assert outcome.refusal is None and len(outcome.labels) == counts["images"], said
        assert f"train: {counts['images']} of " in said and len(seen) == counts["classes"], said
        for label, name in enumerate(CLASSES):
            assert (label in seen) == (f"have no pixel: {name}" not in said), said
        notes = [line for line in said.splitlines() if "not used" in line or "left out" in line]
        assert bool(notes) == (counts["left_out"] > 0), said
        assert not notes or f" {counts['left_out']} " in notes[0], said
    else:
        assert found in (mutator.verdict, *(["repaired"] if mutator.verdict == "same" else [])), said


def _outcome(root: Path, clean_name: Callable[[str], str]) -> Outcome:
    """Runs the check of a training, and mmseg's reading of the label maps."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        try:
            dataset = FolderSegmentation(
                data_root=str(root),
                data_prefix={"img_path": "images/train", "seg_map_path": "labels/train"},
                metainfo={"classes": CLASSES},
                serialize_data=False,
                pipeline=[],
            )
            check_labels(dataset, "train", trains=True)
        except UserError as error:
            return Outcome(said.getvalue(), str(error), {})
        labels = {}
        for info in map(dataset.get_data_info, range(len(dataset))):
            labels[clean_name(Path(info["img_path"]).stem)] = LoadAnnotations()(info)["gt_seg_map"]
            assert imread(info["img_path"]).shape[:2] == info["gt_seg_map"].shape
    return Outcome(said.getvalue(), None, labels)


def _found(outcome: Outcome, clean: Outcome) -> str:
    """What became of a set, in the words of the verdicts."""
    if outcome.refusal is not None:
        return "refused"
    prediction = np.random.default_rng(3).integers(0, len(CLASSES), clean.labels["view00"].shape)
    same = outcome.labels.keys() == clean.labels.keys() and all(
        (labels == clean.labels[stem]).all()
        and (
            confusion_matrix(prediction, labels, len(CLASSES))
            == confusion_matrix(prediction, clean.labels[stem], len(CLASSES))
        ).all()
        for stem, labels in outcome.labels.items()
    )
    if not same:
        return "different"
    if "warning:" in outcome.said:
        return "warned"
    return "repaired" if "note:" in outcome.said else "same"


def _contents(root: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}

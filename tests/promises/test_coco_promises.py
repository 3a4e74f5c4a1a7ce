"""COCO files as people have them: trained and scored as the clean file, or refused before work, never wrong."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.promises.coco_mutators import MUTATORS, clean_coco
from tests.promises.coco_outcome import Outcome, fixed_predictions, outcome_of, write_mutated
from tests.promises.coco_pictures import PICTURE_MUTATORS
from tests.promises.coco_set import ANNOTATION_FILE, IMAGE_FOLDER
from tests.promises.parameters import as_parameters
from tests.promises.verdicts import CocoMutator

CLEAN = next(mutator for mutator in MUTATORS if mutator.name == "file-as-it-is")
# Mutators whose verdict does not hold yet, with the reason.
OPEN = {
    "category-order": "refused with both orders named; to sort the labels instead, mmdet's own CocoMetric must be "
    "refused for such a file, as it is for repaired ones",
}

# Refused by the check of a training or a test; of pictures, and of the config's classes, the evaluators see nothing,
# and where there is no object to find, their score is None.
UNSEEN_BY_SCORES = {mutator.name for mutator in PICTURE_MUTATORS} | {
    "file-name-of-another-machine",
    "file-name-with-the-folder",
    "file-name-address",
    "file-name-without-suffix",
    "all-objects-ignored",
    "all-objects-crowd",
}


class CleanSet:
    """The set that all mutators start from, and what becomes of it; not a dataclass, which hypothesis would print."""

    def __init__(self, root: Path) -> None:
        self.root, self.content = root, clean_coco(root)
        self.predictions = fixed_predictions(self.content)
        self.outcome = outcome_of(CLEAN, root, self.predictions)


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> CleanSet:
    return CleanSet(tmp_path_factory.mktemp("clean"))


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def test_the_clean_set_is_used_whole_and_scored_alike(clean: CleanSet) -> None:
    """All comparisons with the clean set would compare with nothing."""
    outcome = clean.outcome
    assert outcome.refusal is None and outcome.score_refusal is None and "note:" not in outcome.said
    assert (outcome.images, outcome.objects) == (12, len(clean.content["annotations"]))
    assert len(outcome.truth or {}) == 12
    scores = outcome.scores or {}
    assert all(0.2 < values["mAP"] < 0.9 for values in scores.values())
    for kind in ("bbox", "segm"):
        assert scores["pycocotools", kind] == pytest.approx(scores["faster-coco-eval", kind], abs=1e-9)


@pytest.mark.parametrize("mutator", as_parameters(MUTATORS, OPEN))
@settings(
    derandomize=True,
    max_examples=1,  # of each mutator, whose name is part of the seed; more hold too
    deadline=None,
    database=None,
    phases=[Phase.generate],  # smaller seeds are not simpler
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(seed=st.integers(0, 2**16))
def test_coco_files(
    mutator: CocoMutator, clean: CleanSet, folder: Path, record: Callable[..., None], seed: int
) -> None:
    """A file would be trained or scored with other objects than its owner drew, without a word."""
    root = Path(tempfile.mkdtemp(dir=folder))
    if mutator.files is None:
        (root / "annotations").mkdir()
        (root / IMAGE_FOLDER).symlink_to(clean.root / IMAGE_FOLDER)
    else:
        shutil.copytree(clean.root, root, dirs_exist_ok=True)
    changed, data = write_mutated(mutator, clean.content, seed, root)
    start, found = time.perf_counter(), "traceback"
    try:
        outcome = outcome_of(mutator, root, clean.predictions)
        found = _found(outcome, clean.outcome)
    finally:
        record("COCO", mutator.verdict, found, time.perf_counter() - start)
    assert (root / ANNOTATION_FILE).read_bytes() == data
    said = outcome.refusal or outcome.said
    if mutator.verdict == "refused":
        assert found == "refused", said
        assert str(root) in said, said
        if mutator.name not in UNSEEN_BY_SCORES:
            assert outcome.score_refusal is not None and str(root) in outcome.score_refusal, (
                outcome.score_refusal
            )
    elif mutator.verdict == "different":
        assert found in ("different", "same"), said
        assert mutator.counts is not None
        wanted = mutator.counts(clean.content, changed)
        assert (outcome.images, outcome.objects) == (wanted["images"], wanted["objects"])
        total = f"{len(changed['images'])} images and {wanted['objects']} of {len(changed['annotations'])} objects"
        assert f"train: {wanted['images']} of {total} are used" in outcome.said
    else:
        assert found in (mutator.verdict, *(["repaired"] if mutator.verdict == "same" else [])), said


def _found(outcome: Outcome, clean: Outcome) -> str:
    """What became of a set, in the words of the verdicts."""
    if outcome.refusal is not None:
        return "refused"
    same_scores = json.dumps(outcome.scores and sorted(outcome.scores.items())) == json.dumps(
        clean.scores and sorted(clean.scores.items())
    )
    if outcome.truth != clean.truth or not same_scores:
        return "different"
    if "warning:" in outcome.said:
        return "warned"
    return "repaired" if "note:" in outcome.said else "same"

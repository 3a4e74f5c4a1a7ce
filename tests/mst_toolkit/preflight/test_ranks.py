"""Processes that are unlike each other, told apart before they train one network."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

import pytest

from mst_toolkit.findings import FAULT, OK
from mst_toolkit.preflight.ranks import differences, identity
from tests.forked import Forked, free_port

DATA = {"images": 17, "names": "a" * 64, "content": "b" * 64}


@pytest.mark.parametrize(
    ("kind", "key", "value", "said"),
    [
        ("versions", "PyTorch", "1.13.0", "other versions than process 0 (PyTorch"),
        (
            "code",
            "mst_pretrain/method/losses.py",
            "c" * 64,
            "other code than process 0 (mst_pretrain/method/losses.py)",
        ),
        ("data", "images", 16, "other data than process 0 (images 17 and 16)"),
        ("data", "content", "d" * 64, "other data than process 0 (content)"),
    ],
)
def test_what_differs_is_named(kind: str, key: str, value: object, said: str) -> None:
    """Gradients of different losses would be averaged, and nothing would look wrong."""
    first = identity("model = 1", DATA)
    second = copy.deepcopy(first)
    second[kind][key] = value
    ((found, text),) = differences([first, first, second])
    assert found == FAULT and text.startswith("process 2 has") and said in text


def test_equal_processes() -> None:
    """A healthy run of several processes would be refused."""
    first = identity("model = 1", DATA)
    assert [kind for kind, _ in differences([first, copy.deepcopy(first)])] == [OK]
    ((_, text),) = differences([first, identity("model = 2", DATA)])
    assert "has other config" in text


def test_two_processes_with_other_data(toy: Path, images: Path, tmp_path: Path) -> None:
    """A machine with half of the data set would train on it, and the dry run would say that all is well."""
    shutil.copytree(images, tmp_path / "half")
    next((tmp_path / "half").rglob("*.jpg")).unlink()
    common = dict(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free_port()), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2")
    words = [str(toy), "--dry-run", "--work-dir", str(tmp_path / "run")]
    first = Forked("train", *words, RANK="0", LOCAL_RANK="0", **common)
    other = f"data_root={tmp_path / 'half'}"
    second = Forked("train", *words, "--cfg-options", other, RANK="1", LOCAL_RANK="1", **common)
    (code, text), (other_code, other_text) = first.result(), second.result()
    assert (code, other_code) == (1, 1) and "process 1 has other data than process 0" in text
    assert "FAULT" not in other_text and not (tmp_path / "run").exists()

"""Checkpoints behind an address: fetched once, and read without running what is in them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import mmengine.runner.checkpoint as engine
import pytest
import torch
from mmengine.runner import CheckpointLoader

from mst_pretrain.checkpoints.addresses import load_from_url
from mst_pretrain.checkpoints.storage import use_safe_loading
from mst_pretrain.runtime.errors import UserError


class Hostile:
    """Leaves a folder where it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.trace),)


@pytest.fixture(autouse=True)
def fetching(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every address gives ``served.pth``; the addresses that were asked for."""
    asked: list[str] = []

    def download(url: str, target: str, *_: object) -> None:
        asked.append(url)
        Path(target).write_bytes((tmp_path / "served.pth").read_bytes())

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(CheckpointLoader, "_schemes", dict(CheckpointLoader._schemes))
    monkeypatch.setattr(engine, "load_url", engine.load_url)
    use_safe_loading()
    return asked


ADDRESSES = ("https://a.b/w.pth", "http://a.b/w.pth", "torchvision://resnet50", "open-mmlab://resnet50_v1c")


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_downloaded_file_runs_no_code(address: str, tmp_path: Path) -> None:
    """MMEngine opens what it downloads with the reader that runs code, so that a config's address would be enough."""
    torch.save({"trap": Hostile(tmp_path / "trace")}, tmp_path / "served.pth")
    with pytest.raises(UserError, match=r"holds more than weights \(the object \S*mkdir\)"):
        CheckpointLoader.load_checkpoint(address)
    assert not (tmp_path / "trace").exists()


def test_a_file_is_fetched_once(tmp_path: Path, fetching: list[str]) -> None:
    """Published weights in a config could no longer be loaded, or would be fetched at every start."""
    torch.save({"a": torch.ones(2)}, tmp_path / "served.pth")
    for _ in range(2):
        assert torch.equal(CheckpointLoader.load_checkpoint("https://a.b/w.pth")["a"], torch.ones(2))
    assert fetching == ["https://a.b/w.pth"]


def test_a_failed_download_is_explained(tmp_path: Path) -> None:
    """A machine without a network would end in urllib's traceback."""
    with pytest.raises(UserError, match=r"https://a\.b/x\.pth cannot be fetched to .*Check the address"):
        load_from_url("https://a.b/x.pth")


@pytest.mark.parametrize("address", ["s3://b/w.pth", "x:petrel://b/w.pth", "pavi://w"])
def test_other_addresses_are_refused(address: str) -> None:
    """MMEngine's readers of cloud storage fall back to the one that runs code."""
    with pytest.raises(UserError, match="files behind this kind of address are not read"):
        CheckpointLoader.load_checkpoint(address)

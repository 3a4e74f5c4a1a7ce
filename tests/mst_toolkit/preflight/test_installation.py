"""Installations that fail in the middle of a run, each recognised before it."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torchvision

from mst_toolkit.findings import FAULT, OK, WARN
from mst_toolkit.preflight import installation


def distribution(folder: Path, name: str, number: str) -> None:
    """What pip leaves of a distribution."""
    place = folder / f"{name.replace('-', '_')}-{number}.dist-info"
    place.mkdir(parents=True)
    (place / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {number}\n")


def test_two_distributions_of_one_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of two mmcv would be mixed, and training fail with an error that names neither."""
    before = [text for kind, text in installation.doubles() if kind == FAULT]
    distribution(tmp_path, "mmcv-full", "1.7.2")
    monkeypatch.syspath_prepend(tmp_path)
    (text,) = [text for kind, text in installation.doubles() if kind == FAULT and text not in before]
    assert "mmcv-full 1.7.2 are both installed" in text and "pip uninstall -y" in text


def test_two_versions_of_one_distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A PYTHONPATH with another timm in it would decide which network is trained."""
    distribution(tmp_path, "timm", "0.4.12")
    monkeypatch.syspath_prepend(tmp_path)
    texts = [text for kind, text in installation.doubles() if kind == WARN]
    assert any(f"timm is installed in several versions (0.4.12 in {tmp_path}" in text for text in texts)


def test_a_package_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fine-tuning would fail with an ImportError after the pretraining of a week."""
    monkeypatch.setitem(sys.modules, "mmcv", None)
    texts = dict(reversed(line) for line in installation.versions())
    (text,) = [text for text, kind in texts.items() if kind == WARN]
    assert text.startswith("mmcv missing") and "pip install 'mst-toolkit[transfer]'" in text
    assert not list(installation.operators())
    assert any(
        kind == FAULT and "its package 'mmcv' is not there" in text for kind, text in installation.doubles()
    )


def test_builds_for_other_cudas(monkeypatch: pytest.MonkeyPatch) -> None:
    """NMS would fail on the GPU in the first validation."""
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torchvision.version, "cuda", 12080, raising=False)
    texts = [text for kind, text in installation.builds() if kind == WARN]
    assert any("built for CUDA 13.0 and torchvision for CUDA 12.8" in text for text in texts)
    monkeypatch.setattr(torchvision.version, "cuda", 13000)
    assert not any("and torchvision for" in text for kind, text in installation.builds() if kind == WARN)


def test_torchvision_without_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    """A torchvision for another PyTorch is imported without a word."""
    monkeypatch.setattr(torchvision.extension, "_has_ops", lambda: False)
    assert any(
        kind == FAULT and "pip install -U torch torchvision" in text for kind, text in installation.builds()
    )


def test_a_gpu_that_pytorch_does_not_see(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run would train for weeks on the CPU beside an idle GPU."""
    file = tmp_path / "version"
    file.write_text(
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19\nGCC version: 12\n"
    )
    assert installation.driver_version(file) == "535.104.05"
    assert installation.driver_version(tmp_path / "none") is None
    monkeypatch.setattr(installation, "driver_version", lambda: "535.104.05")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    (text,) = [text for kind, text in installation.builds() if kind == WARN and "NVIDIA GPU" in text]
    assert "this PyTorch was built without CUDA" in text


@pytest.mark.parametrize(
    ("content", "kind", "said"),
    [
        ("", OK, "its own, compiled"),
        ("raise ImportError('undefined symbol: _ZN3c10')", FAULT, "undefined symbol"),
    ],
)
def test_compiled_operators(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, kind: str, said: str
) -> None:
    """Operators built for another PyTorch would only be missed where the first box is made."""
    (tmp_path / "_ext.py").write_text(content)
    package = ModuleType("mmcv")
    package.__path__ = [str(tmp_path)]
    monkeypatch.setitem(sys.modules, "mmcv", package)
    monkeypatch.delitem(sys.modules, "mmcv._ext", raising=False)
    monkeypatch.setattr(installation, "is_installed", lambda name: True)
    ((found, text),) = installation.operators()
    monkeypatch.delitem(sys.modules, "mmcv._ext", raising=False)
    assert found == kind and said in text

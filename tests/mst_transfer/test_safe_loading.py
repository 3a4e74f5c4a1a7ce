"""Checkpoints that mmdet's and mmseg's own models open: MMEngine would run a pickle's code."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.model import BaseModule
from mmengine.runner import CheckpointLoader, load_checkpoint
from torch import nn

import mst_transfer
from mst_pretrain.checkpoints.storage import save_safetensors
from mst_pretrain.runtime.errors import UserError
from tests.forked import Forked

SWIN: dict[str, Any] = dict(embed_dims=24, depths=(1, 1, 1, 1), num_heads=(1, 2, 3, 4))
VIT: dict[str, Any] = dict(img_size=32, embed_dims=24, num_layers=2, num_heads=2, out_indices=(1,))
Build = Callable[[Path], Any]
DROP_IN = Path(__file__).parents[2] / "docs/drop_in.md"


@pytest.fixture(autouse=True)
def safe_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    """What every tool asks for, until the end of the test."""
    monkeypatch.setattr(CheckpointLoader, "_schemes", dict(CheckpointLoader._schemes))
    mst_transfer.use_safe_loading()


class Hostile:
    """Leaves a file where it is unpickled as an object."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.trace,)


class Convolution(BaseModule):
    """A model that MMEngine's PretrainedInit starts, as it does a ResNet."""

    def __init__(self, init_cfg: Any) -> None:
        super().__init__(init_cfg)
        self.layer = nn.Conv2d(3, 4, 1)


def pretrained(path: Path) -> ConfigDict:
    return ConfigDict(type="Pretrained", checkpoint=str(path))


def native(library: str, name: str, **options: Any) -> Build:
    """The library's model from a file; imported late, when mst_transfer has given mmcv its ops."""
    return lambda path: getattr(import_module(f"{library}.models"), name)(
        **options, init_cfg=pretrained(path)
    )


BUILD: dict[str, Build] = {
    "mmdet Swin": native("mmdet", "SwinTransformer", **SWIN),
    "mmseg Swin": native("mmseg", "SwinTransformer", **SWIN),
    "mmseg ViT": native("mmseg", "VisionTransformer", **VIT),
    "MMEngine's initializer": lambda path: Convolution(init_cfg=pretrained(path)),
}


@pytest.mark.parametrize("name", BUILD)
def test_native_backbones_run_no_code_of_a_file(name: str, tmp_path: Path) -> None:
    """A downloaded file would run its code in tools/train.py, or a good one no longer load."""
    torch.manual_seed(1)
    source, path = BUILD[name](tmp_path), tmp_path / "w.pth"
    weights = {
        key: torch.randn_like(v) if v.is_floating_point() else v for key, v in source.state_dict().items()
    }
    torch.save({"state_dict": weights, "trap": Hostile(tmp_path / "trace")}, path)
    with pytest.raises(
        UserError, match=r"w\.pth holds more than weights \(the object .*\) and was not opened"
    ):
        BUILD[name](path).init_weights()
    assert not (tmp_path / "trace").exists()

    prefix = "backbone." if name == "mmdet Swin" else ""  # it takes no other keys
    torch.save({"state_dict": {f"{prefix}{key}": value for key, value in weights.items()}}, path)
    loaded = BUILD[name](path)
    loaded.init_weights()
    assert all(torch.equal(value, weights[key]) for key, value in loaded.state_dict().items())


def test_the_trap_works(tmp_path: Path) -> None:
    """The hostile file of the test above would be harmless, and prove nothing."""
    torch.save({"trap": Hostile(tmp_path / "trace")}, tmp_path / "w.pth")
    torch.load(tmp_path / "w.pth", weights_only=False)
    assert (tmp_path / "trace").exists()


def test_absent_and_home_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong path would end in a traceback, or one below the home folder no longer be found."""
    with pytest.raises(UserError, match=r"checkpoint not found: .*gone\.pth"):
        BUILD["mmdet Swin"](tmp_path / "gone.pth").init_weights()
    monkeypatch.setenv("HOME", str(tmp_path))
    torch.save({"a": torch.ones(2)}, tmp_path / "w.pth")
    assert torch.equal(CheckpointLoader.load_checkpoint("~/w.pth")["a"], torch.ones(2))


def test_safetensors_and_devices(tmp_path: Path) -> None:
    """A model without a device given, or a .safetensors file, would end in a traceback."""
    target, weights = nn.Linear(2, 2), nn.Linear(2, 2).state_dict()
    save_safetensors(weights, tmp_path / "w.safetensors")
    for location in (None, "cpu", torch.device("cpu")):
        load_checkpoint(target, str(tmp_path / "w.safetensors"), map_location=location, strict=True)
    assert torch.equal(target.weight, weights["weight"])


def test_addresses_keep_their_loaders() -> None:
    """A published address in a config would be taken for a local file."""
    for address, name in (("https://a.b/w.pth", "http"), ("torchvision://resnet50", "torchvision")):
        assert CheckpointLoader._get_checkpoint_loader(address).__name__ == f"load_from_{name}"


ENTRIES: dict[str, str] = {
    "tools": """
from mst_pretrain.training import launch, runner
runner.build_runner = lambda cfg: None
launch.run(Config({"launcher": "none"}), lambda _: load(sys.argv[1]))
""",
    "predict": """
import mst_transfer
try:
    mst_transfer.predict(sys.argv[2], "none.pth", [])
except UserError:
    pass
load(sys.argv[1])
""",
    "drop-in config": """
Config.fromfile(sys.argv[3])
load(sys.argv[1])
""",
}


@pytest.mark.parametrize("name", ENTRIES)
def test_every_way_in_asks_for_the_safe_reader(name: str, tmp_path: Path) -> None:
    """A tool, the Python entry or a config with the documented line would run the code of a downloaded file."""
    torch.save({"trap": Hostile(tmp_path / "trace")}, tmp_path / "w.pth")
    config = "default_scope = 'mmdet'\ntest_dataloader = dict()\n"
    (tmp_path / "detector.py").write_text(config)
    lines = next(block for block in DROP_IN.read_text().split("```python\n") if "use_safe_loading" in block)
    documented = textwrap.dedent(lines.partition("```")[0])
    (tmp_path / "base.py").write_text(config)
    (tmp_path / "drop_in.py").write_text(re.sub(r"_base_ = .*", '_base_ = "base.py"', documented))
    code = (
        "import sys\nfrom mmengine.config import Config\nfrom mmengine.runner import CheckpointLoader\n"
        "from mst_pretrain.runtime.errors import UserError\nload = CheckpointLoader.load_checkpoint\n"
    )
    files = [str(tmp_path / file) for file in ("w.pth", "detector.py", "drop_in.py")]
    entry = tmp_path / "entry.py"
    entry.write_text(code + ENTRIES[name])
    ended, output = Forked(str(entry), *files).result()
    assert ended == 1 and "UserError: " in output and "was not opened" in output
    assert not (tmp_path / "trace").exists()


def test_importing_changes_no_loader() -> None:
    """MMEngine would read every file in another way because a project of somebody else imports a backbone."""
    code = (
        "from mmengine.runner import CheckpointLoader as c\nbefore = dict(c._schemes)\nimport mst_transfer\n"
        "assert dict(c._schemes) == before"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

"""Without MMEngine and OpenCV: checkpoints are read, converted and inspected; what trains names the extra."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from mmengine.logging import HistoryBuffer

from mst_pretrain.checkpoints.storage import load_checkpoint
from mst_pretrain.runtime.config import with_registration

ROOT = Path(__file__).parents[2]
SIZES: dict[str, Any] = dict(img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2)
BLOCKED = ("mmengine", "mmcv", "mmdet", "mmseg", "cv2", "rich", "matplotlib", "jinja2")
# runs statements where none of BLOCKED is installed
WITHOUT = f"""
import importlib.abc, sys
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {BLOCKED!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
"""


def without_engine(statements: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Python in a process of its own, in which nothing of BLOCKED can be imported."""
    command = [sys.executable, "-c", WITHOUT + statements, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


TOOL = "import runpy; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as a pretraining writes it, with a loss history of MMEngine's."""
    path = tmp_path_factory.mktemp("run") / "latest.pth"
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=0, **SIZES)
    state = {
        f"{role}.backbone.{k}": v for role in ("teacher", "student") for k, v in model.state_dict().items()
    }
    meta = {"architecture": "vit_tiny_patch16_224", "model_args": json.dumps(SIZES), "iter": 3}
    history = HistoryBuffer([1.0, 2.0], [1, 1])
    torch.save({"state_dict": state, "meta": meta, "message_hub": {"log_scalars": {"loss": history}}}, path)
    return path


def test_conversion_and_inspection(checkpoint: Path, tmp_path: Path) -> None:
    """Somebody who only wants the weights would have to install MMEngine and OpenCV, and change another stack."""
    target = tmp_path / "vit.safetensors"
    done = without_engine(TOOL, "tools/convert_checkpoint.py", checkpoint, target, "--verify")
    assert done.returncode == 0, done.stderr
    assert "verified with timm: largest feature deviation 0.0e+00" in done.stdout
    shown = without_engine(TOOL, "tools/inspect_checkpoint.py", target, "--json")
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout)["backbones"][0]["architecture"].startswith("vit_tiny_patch16_224")


def test_what_trains_names_the_extra() -> None:
    """Somebody with the core alone would read a traceback instead of what to install."""
    done = without_engine(TOOL, "tools/train.py", "configs/quickstart/pretrain.py")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "needs the package 'mmengine'" in done.stderr and "'mst-toolkit[pretrain]'" in done.stderr


@pytest.mark.parametrize(
    "order", ["import mmengine.registry, mst_pretrain", "import mst_pretrain; import mmengine.registry"]
)
def test_a_config_registers_everything_in_either_order(order: str, tmp_path: Path) -> None:
    """A config that names mst_pretrain would not find MST where the package had been imported before MMEngine."""
    (tmp_path / "config.py").write_text('custom_imports = dict(imports=["mst_pretrain"])\n')
    code = f"""
import sys
{order}
from mst_pretrain.runtime.config import import_custom_modules, load_config
import_custom_modules(load_config(sys.argv[1]))
print(mmengine.registry.MODELS.get("MST").__module__)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "config.py")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["mst_pretrain.method.mst"], done.stderr


def test_engines_own_reading_of_a_config_registers(tmp_path: Path) -> None:
    """mmdet's tools, which read custom_imports with MMEngine's function, would not find our classes."""
    (tmp_path / "config.py").write_text('custom_imports = dict(imports=["mst_pretrain"])\n')
    code = "import sys; from mmengine.config import Config; Config.fromfile(sys.argv[1])\n"
    code += "from mmengine.registry import MODELS; print(MODELS.get('MST').__module__)"
    command = [sys.executable, "-c", code, str(tmp_path / "config.py")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["mst_pretrain.method.mst"], done.stderr


def test_one_text_of_imports_is_one_module() -> None:
    """``imports="mst_pretrain"`` would be taken letter by letter."""
    assert with_registration("mst_pretrain") == ["mst_pretrain", "mst_pretrain.register"]
    assert with_registration(["mst_transfer"]) == ["mst_transfer"]


def test_a_training_reads_the_real_history(checkpoint: Path) -> None:
    """A resumed run would go on with a stand-in that has no values of the loss."""
    history = load_checkpoint(checkpoint)["message_hub"]["log_scalars"]["loss"]
    assert type(history) is HistoryBuffer and history.mean() == 1.5

"""One of two processes is lost in mid-run: the other one says so in time, and the job goes on exactly.

tests/qa/lost_process.py does the same through torchrun, which starts both again by itself.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mst_pretrain.checkpoints.storage import load_checkpoint
from mst_pretrain.runtime.errors import LOST
from tests.forked import outputs_of, two
from tests.qa.stop_and_resume import CONFIG

ROOT = Path(__file__).parents[2]
STEPS, SILENCE = 8, 1.5
# Imported by the config: in step 6 the second process gets a signal, after the checkpoint of step 4.
LOSE_THE_SECOND_RANK = """
import os
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

@HOOKS.register_module()
class LostAtSix(Hook):
    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter + 1 == 6 and os.environ["RANK"] == "1" and "FAULT" in os.environ:
            os.kill(os.getpid(), int(os.environ["FAULT"]))
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a run of two processes with a checkpoint after every fourth step."""
    folder = tmp_path_factory.mktemp("lost")
    (folder / "images").mkdir()
    for index in range(9):
        pixels = np.random.default_rng(index).integers(0, 256, (40, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"images/{index}.png")
    (folder / "losing.py").write_text(LOSE_THE_SECOND_RANK)
    base, path = str(ROOT / "configs/_base_/mst_pretrain.py"), folder / "two.py"
    text = CONFIG.format(base=base, images=str(folder / "images"), batch=2, steps=STEPS)
    text = text.replace("num_workers=2", "num_workers=0, persistent_workers=False")
    text += (
        "custom_imports = dict(imports=['mst_pretrain', 'losing'])\ncustom_hooks = [dict(type='LostAtSix')]\n"
    )
    text += f"default_hooks = dict(checkpoint=dict(interval=4), watch=dict(silence={SILENCE}))\n"
    path.write_text(text)
    return path


def start(config: Path, work_dir: Path, **environment: str) -> Any:
    path = os.pathsep.join([str(ROOT), str(config.parent)])
    arguments = [str(config), "--launcher", "pytorch", "--work-dir", str(work_dir)]
    return two("train", *arguments, PYTHONPATH=path, **environment)


@pytest.fixture(scope="module")
def whole(config: Path) -> dict[str, Any]:
    """The last checkpoint of an undisturbed run."""
    folder = config.with_name("whole")
    outputs_of(start(config, folder))
    return load_checkpoint(folder / "latest.pth")


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (signal.SIGSTOP, "rank 1 (process {process} on "),
        (signal.SIGKILL, "rank 0 of 2 lost the connection to another process, which ended"),
    ],
    ids=["stopped", "killed"],
)
def test_a_lost_process_is_named_in_time_and_the_run_goes_on_exactly(
    config: Path, whole: dict[str, Any], tmp_path: Path, number: int, said: str
) -> None:
    """A job of many machines would stand still for half an hour, blame the wrong one, or start from its beginning."""
    first, second = start(config, tmp_path / "run", FAULT=str(int(number)))
    code, output = first.result()
    if not second.ended:
        second.kill()
    second.result()
    assert code == LOST, output[-3000:]
    errors = [line for line in output.splitlines() if line.startswith("error:")]
    assert len(errors) == 1 and said.format(process=second.process.pid) in errors[0]
    latest = tmp_path / "run/latest.pth"
    assert load_checkpoint(latest)["meta"]["iter"] == 4
    outputs_of(start(config, tmp_path / "run", TORCHELASTIC_RESTART_COUNT="1"))  # as torchrun starts it again
    resumed = load_checkpoint(latest)
    assert resumed["meta"]["iter"] == STEPS
    for name, value in whole["state_dict"].items():
        assert torch.equal(value, resumed["state_dict"][name]), name
    states = [loaded["optimizer"]["state"] for loaded in (whole, resumed)]
    assert states[0].keys() == states[1].keys()
    for key, state in states[0].items():
        for name, value in state.items():
            assert torch.equal(value, states[1][key][name]), (key, name)

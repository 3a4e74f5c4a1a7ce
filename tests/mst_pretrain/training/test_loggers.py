"""TensorBoard, Weights & Biases and MLflow, each in a stand-in that writes down how it was called."""

from __future__ import annotations

import importlib
import itertools
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from mmengine.config import Config

import mst_pretrain  # noqa: F401  registers the model, the data and the loop
from mst_pretrain.runtime.errors import UserError
from mst_pretrain.runtime.run_files import newest_checkpoint
from mst_pretrain.training.loggers import check_loggers, wandb_is_set_up
from mst_pretrain.training.runner import build_runner

MakeConfig = Callable[..., Config]
NUMBERS = itertools.count()  # MMEngine keeps loggers by name
WANDB = """
calls = []
def init(**given): calls.append(("init", given))
def define_metric(name, step_metric): calls.append(("define", name, step_metric))
def log(values, commit): calls.append(("log", values))
def finish(): calls.append(("finish",))
"""
MLFLOW = """
from types import SimpleNamespace
calls = []
class MlflowException(Exception): pass
def set_tracking_uri(uri): calls.append(("uri", uri))
def get_experiment_by_name(name): return None
def create_experiment(name, artifact_location): calls.append(("create", name, artifact_location))
def set_experiment(name): calls.append(("experiment", name))
def start_run(run_id, run_name):
    calls.append(("start", run_id, run_name))
    return SimpleNamespace(info=SimpleNamespace(run_id=run_id or "id-of-mlflow"))
def log_text(text, name): calls.append(("text", name))
def log_metrics(values, step): calls.append(("log", values, step))
def end_run(): calls.append(("end",))
"""


@pytest.fixture
def services(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """Stand-ins of the packages, with their calls; nobody has set a service up."""
    folder = tmp_path / "packages"
    folder.mkdir()
    for name, text in (("wandb", WANDB), ("mlflow", MLFLOW), ("tensorboard", "")):
        (folder / f"{name}.py").write_text(text)
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(folder)
    written: list[Any] = []

    class Writer:
        def __init__(self, folder: str, purge_step: int | None) -> None:
            written.append(("writer", Path(folder).name, purge_step))

        def add_text(self, name: str, text: str) -> None:
            written.append((name, "prototypes" in text))

        def add_scalar(self, name: str, value: float, step: int) -> None:
            written.append((name, value, step))

        def close(self) -> None:
            written.append(("close",))

    writers = ModuleType("torch.utils.tensorboard")
    vars(writers)["SummaryWriter"] = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", writers)
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    wandb, mlflow = (importlib.import_module(name) for name in ("wandb", "mlflow"))
    yield SimpleNamespace(tensorboard=written, wandb=wandb.calls, mlflow=mlflow.calls)
    for name in ("wandb", "mlflow", "tensorboard"):
        sys.modules.pop(name, None)


def train(make: MakeConfig, folder: Path, max_iters: int, tidy: bool = True, resume: bool = False) -> None:
    cfg = make(
        run_folder=tidy,
        loggers=["tensorboard", "wandb", "mlflow"],
        train_cfg__max_iters=max_iters,
        default_hooks__logger__interval=2,
    )
    cfg.work_dir, cfg.experiment_name = str(folder), f"{folder}-{next(NUMBERS)}"
    if resume:
        cfg.resume, cfg.load_from = True, str(newest_checkpoint(folder, tidy))
    runner = build_runner(cfg)
    runner.train()


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_resumed_run_continues_its_curves(
    services: SimpleNamespace, toy_config: MakeConfig, tmp_path: Path
) -> None:
    """Two curves would be there after a resume, or one with the same steps twice."""
    folder = tmp_path / "run"
    train(toy_config, folder, 4)
    train(toy_config, folder, 8, resume=True)
    losses = [(line["step"], line["loss"]) for line in lines_of(folder)]
    assert [step for step, _ in losses] == [2, 4, 6, 8]

    board = services.tensorboard
    assert [call for call in board if call[0] == "writer"] == [
        *(("writer", "tensorboard", 0), ("writer", "tensorboard", 6)),
    ]
    assert [(call[2], call[1]) for call in board if call[0] == "train/loss"] == losses
    assert ("config", True) in board and board.count(("close",)) == 2

    first, second = (call[1] for call in services.wandb if call[0] == "init")
    assert first["id"] == second["id"] and (first["resume"], second["resume"]) == (None, "allow")
    assert first["mode"] == second["mode"] == "offline" and first["dir"] == str(folder)
    logged = [call[1] for call in services.wandb if call[0] == "log"]
    assert [(values["step"], values["train/loss"]) for values in logged] == losses
    assert services.wandb.count(("define", "*", "step")) == services.wandb.count(("finish",)) == 2

    starts = [call[1:] for call in services.mlflow if call[0] == "start"]
    assert starts == [(None, "run"), ("id-of-mlflow", None)]
    assert ("uri", f"sqlite:///{folder}/mlflow/mlflow.db") in services.mlflow
    logged = [(call[2], call[1]["train/loss"]) for call in services.mlflow if call[0] == "log"]
    assert logged == losses and services.mlflow.count(("end",)) == 2


def test_another_run_in_the_folder_begins_anew(
    services: SimpleNamespace, toy_config: MakeConfig, tmp_path: Path
) -> None:
    """The numbers of a new run would be added to the curve of an old one."""
    for _ in range(2):
        train(toy_config, tmp_path / "run", 2)
    first, second = (call[1] for call in services.wandb if call[0] == "init")
    assert first["id"] != second["id"] and second["resume"] is None
    assert [call[1] for call in services.mlflow if call[0] == "start"] == [None, None]


def test_loggers_without_a_run_folder(
    services: SimpleNamespace, toy_config: MakeConfig, tmp_path: Path
) -> None:
    """Configs in MMEngine's layout could not log to a service, or would lose their own file."""
    train(toy_config, tmp_path / "run", 4, tidy=False)
    logged = [call[1] for call in services.wandb if call[0] == "log"]
    assert [values["step"] for values in logged] == [2, 4] and all("loss_ce" in values for values in logged)
    (file,) = (tmp_path / "run").glob("*/vis_data/scalars.json")
    assert len(file.read_text().splitlines()) == 2


def test_a_service_that_is_set_up_is_used(
    services: SimpleNamespace, toy_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A laboratory's server would never see a run."""
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server")
    train(toy_config, tmp_path / "run", 2)
    assert "mode" not in next(call[1] for call in services.wandb if call[0] == "init")
    assert not any(call[0] == "uri" for call in services.mlflow)
    assert ("create", "mst", None) in services.mlflow


def test_a_login_counts_as_set_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has logged in would find nothing but files."""
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert not wandb_is_set_up()
    (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password x\n")
    (tmp_path / ".netrc").chmod(0o600)
    assert wandb_is_set_up()


def test_a_missing_package_is_named_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training would end at its first line, or take a folder of logs for the package."""
    (tmp_path / "wandb").mkdir()  # as Weights & Biases leaves it where it was called
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    importlib.invalidate_caches()
    expected = r"--logger wandb: not installed here: wandb\. .*pip install 'mst-toolkit\[logging\]'"
    with pytest.raises(UserError, match=expected):
        check_loggers({"loggers": ["wandb"]})


@pytest.mark.parametrize("loggers", ["wandb", ["tensorboard", "comet"], {"wandb": 1}])
def test_unknown_loggers_are_refused(services: SimpleNamespace, loggers: Any) -> None:
    """A word that is no list would be read letter by letter."""
    with pytest.raises(UserError, match=r"Known are tensorboard, wandb, mlflow: loggers = \['tensorboard'\]"):
        check_loggers({"loggers": loggers})
    check_loggers({"loggers": ["tensorboard", "mlflow"]})
    check_loggers({"loggers": None})

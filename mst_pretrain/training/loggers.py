"""TensorBoard, Weights & Biases and MLflow: MMEngine's backends, offline unless set up, one curve for a resumed run."""

from __future__ import annotations

import importlib
import importlib.util
import json
import logging
import netrc
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import VISBACKENDS
from mmengine.visualization import MLflowVisBackend, TensorboardVisBackend, WandbVisBackend

from ..runtime.atomic import write_json
from ..runtime.errors import UserError
from ..runtime.run_files import LOGGERS
from .command_line import PACKAGES

BACKENDS = {"tensorboard": "TensorboardCurves", "wandb": "WandbCurves", "mlflow": "MLflowCurves"}
IDS = "loggers.json"  # what each service calls the run, so that a resumed one continues its curve
INSTALL = "pip install 'mst-toolkit[logging]'"
WANDB_HOST = "api.wandb.ai"
WANDB_SET_UP = ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL")
MLFLOW_SET_UP, EXPERIMENT = "MLFLOW_TRACKING_URI", "mst"


def check_loggers(cfg: Mapping[str, Any]) -> None:
    """Raise a UserError where a config's ``loggers`` are not a list of known ones, or a package is missing."""
    names = cfg.get(LOGGERS) or []
    unknown = (
        [name for name in names if name not in PACKAGES] if isinstance(names, (list, tuple)) else [names]
    )
    if unknown:
        raise UserError(
            f"{LOGGERS} has {unknown[0]!r}. Known are {', '.join(PACKAGES)}: {LOGGERS} = ['tensorboard'], or "
            "--logger tensorboard."
        )
    missing = [name for name in names if not _installed(name)]
    if missing:
        raise UserError(
            f"--logger {' '.join(missing)}: not installed here: {', '.join(missing)}. Install what all loggers need: "
            f"{INSTALL}, or leave --logger out."
        )


def _installed(package: str) -> bool:
    """Whether a package is there; a folder of that name, such as loggers write, is not one."""
    try:
        found = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return False
    return found is not None and found.origin is not None


def with_loggers(
    visualizer: Any, names: list[str], root: Path, resumed: Callable[[], bool]
) -> dict[str, Any]:
    """A config's ``visualizer`` with the backends of its ``loggers``.

    Args:
        visualizer: A dictionary.
        names: Of the loggers.
        root: The run's folder; each logger has a folder in it.
        resumed: Asked before the first number is logged: whether the run continues one.
    """
    backends = visualizer.get("vis_backends") or []
    given = [backends] if isinstance(backends, dict) else list(backends)
    ours = [
        {"type": f"mmengine.{BACKENDS[name]}", "save_dir": str(root / name), "resumed": resumed}
        for name in dict.fromkeys(names)
    ]
    return {**visualizer, "vis_backends": [*given, *ours]}


class _Begun:
    """What the three backends share: nothing begins before the first number, when the run is known to be accepted.

    Args:
        save_dir: The logger's folder, in the run's.
        resumed: Whether the run continues one.
    """

    name: str
    _save_dir: str

    def __init__(self, save_dir: str, resumed: Callable[[], bool] = lambda: False) -> None:
        super().__init__(save_dir)  # type: ignore[call-arg]
        self.resumed, self.config, self.first = resumed, Config({}), 0
        self.ids = Path(save_dir).parent / IDS

    def add_config(self, config: Config, **kwargs: Any) -> None:
        """Keep the config until the logger begins."""
        self.config = config

    def add_scalars(self, scalar_dict: dict[str, Any], step: int = 0, *args: Any, **kwargs: Any) -> None:
        """MMEngine's; ``step`` of the first call tells where the curve goes on."""
        self.first = self.first or step
        super().add_scalars(scalar_dict, step, *args, **kwargs)  # type: ignore[misc]

    def known_id(self) -> str | None:
        """The run's id of its first start, or None."""
        if not self.resumed() or not self.ids.is_file():
            return None
        found = json.loads(self.ids.read_text(encoding="utf-8")).get(self.name)
        return None if found is None else str(found)

    def keep_id(self, value: str) -> None:
        """Keep the run's id for its next start."""
        ids = json.loads(self.ids.read_text(encoding="utf-8")) if self.ids.is_file() else {}
        if ids.get(self.name) != value:
            write_json({**ids, self.name: value}, self.ids)

    def title(self) -> str:
        """What a list of runs shows."""
        return Path(self._save_dir).resolve().parent.name


@VISBACKENDS.register_module()
class TensorboardCurves(_Begun, TensorboardVisBackend):
    """TensorBoard; what a killed run has written beyond its checkpoint is hidden once it is resumed."""

    name = "tensorboard"

    def _init_env(self) -> None:
        from torch.utils.tensorboard import SummaryWriter

        Path(self._save_dir).mkdir(parents=True, exist_ok=True)
        begin = self.first if self.resumed() else 0  # earlier numbers from here on are hidden
        self._tensorboard = SummaryWriter(self._save_dir, purge_step=begin)
        self._tensorboard.add_text("config", f"```\n{self.config.pretty_text}\n```")


@VISBACKENDS.register_module()
class WandbCurves(_Begun, WandbVisBackend):
    """Weights & Biases: offline unless it was set up, over our steps, without a copy of the code."""

    name = "wandb"

    def _init_env(self) -> None:
        wandb: Any = importlib.import_module("wandb")

        known = self.known_id()
        identity = known or secrets.token_hex(4)
        offline = {} if wandb_is_set_up() else {"mode": "offline"}
        wandb.init(
            dir=str(self.ids.parent),  # it makes a folder "wandb" there
            id=identity,
            name=self.title(),
            resume="allow" if known else None,
            config=self.config.to_dict(),
            allow_val_change=True,
            **offline,
        )
        wandb.define_metric("*", step_metric="step")
        self.keep_id(identity)
        self._wandb = wandb

    def add_scalars(self, scalar_dict: dict[str, Any], step: int = 0, *args: Any, **kwargs: Any) -> None:
        """Numbers over the training's step, not over the number of calls."""
        super().add_scalars({**scalar_dict, "step": step}, step, *args, **kwargs)

    def close(self) -> None:
        """End the run there."""
        if hasattr(self, "_wandb"):
            self._wandb.finish()


def wandb_is_set_up() -> bool:
    """Whether somebody has logged in, or said what to do."""
    if any(os.environ.get(name) for name in WANDB_SET_UP):
        return True
    try:
        return netrc.netrc().authenticators(WANDB_HOST) is not None
    except (OSError, netrc.NetrcParseError):
        return False


@VISBACKENDS.register_module()
class MLflowCurves(_Begun, MLflowVisBackend):
    """MLflow: in the run's folder unless ``MLFLOW_TRACKING_URI`` is set; the config is kept as a file."""

    name = "mlflow"

    def _init_env(self) -> None:
        mlflow: Any = importlib.import_module("mlflow")

        logging.getLogger("mlflow").setLevel(logging.WARNING)  # else it tells of each table of its database
        folder, files = Path(self._save_dir).resolve(), None
        if not os.environ.get(MLFLOW_SET_UP):
            folder.mkdir(parents=True, exist_ok=True)
            mlflow.set_tracking_uri(
                f"sqlite:///{folder / 'mlflow.db'}"
            )  # it takes no folder of files any more
            files = (folder / "files").as_uri()
        known = self.known_id()
        if mlflow.get_experiment_by_name(EXPERIMENT) is None:
            mlflow.create_experiment(EXPERIMENT, artifact_location=files)
        mlflow.set_experiment(EXPERIMENT)
        run = mlflow.start_run(run_id=known, run_name=None if known else self.title())
        self.keep_id(run.info.run_id)
        mlflow.log_text(self.config.pretty_text, "config.py")
        self._mlflow = mlflow

    def close(self) -> None:
        """End the run there."""
        if hasattr(self, "_mlflow"):
            self._mlflow.end_run()

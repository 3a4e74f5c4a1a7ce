"""One step of MST pretraining beside DINO's: time, peak memory, and the calls that it is made of.

    pip install lightly
    python benchmarks/pretrain_step.py [--config configs/pretrain/mst_deit-s_8xb128-300e_in1k.py] [--batch 8]
        [--dtype float32|bfloat16] [--rounds 5] [--threads 2] [--calls] [--profile] [--cfg-options KEY=VALUE ...]

Crops are noise. ``MST`` is the whole step: colours on the device, teacher, mask, student, decoder, losses, backward
pass, clipping, optimizer, teacher's step. ``MST, colours done`` leaves the first out, as DINO's step does (see
dino_step.py; for a Swin there is no peer). Each variant's peak memory is measured in a separate process. ``--calls``
counts the calls of PyTorch's operators instead, part by part; ``--profile`` lists those that take longest.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import mst_pretrain  # noqa: F401  registers the method
from mst_pretrain.data.multicrop import DRAWS, MultiCrop, color_parameters
from mst_pretrain.runtime.config import load_config
from mst_pretrain.runtime.errors import run_cli

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.timing import in_turn, peak_of_process, publish, table, wait

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "configs/pretrain/mst_deit-s_8xb128-300e_in1k.py"
WHOLE, READY, PEER = "MST", "MST, colours done", "DINO's step"
DTYPES = {"float32": None, "bfloat16": torch.bfloat16}


class MSTStep:
    """The model of a config, its optimizer, and a batch of crops.

    Args:
        cfg: A pretraining config.
        batch: Images.
        device: Where all is.
        dtype: ``float32`` or ``bfloat16``.
    """

    def __init__(self, cfg: Any, batch: int, device: torch.device, dtype: str) -> None:
        torch.manual_seed(0)
        self.model = MODELS.build(cfg.model).to(device).train()
        self.wrapper: Any = build_optim_wrapper(self.model, {**cfg.optim_wrapper, "dtype": dtype})
        self.data = batch_of(MultiCrop(**cfg.train_dataloader.dataset.crops), batch)

    def __call__(self) -> None:
        """All that one iteration computes."""
        self.model.train_step(self.data, self.wrapper)
        self.model.update_teacher(0.996)

    def views(self) -> tuple[Tensor, Tensor]:
        """The crops as the model sees them, without augmentation."""
        ready = self.model.data_preprocessor(self.data, training=False)
        return ready["global_views"], ready["local_views"]

    def without_colours(self) -> Callable[[], None]:
        """The step on crops whose colours are done."""
        ready = self.model.data_preprocessor(self.data, training=False)

        def step() -> None:
            with self.wrapper.optim_context(self.model):
                losses = self.model(**ready)
            self.wrapper.update_params(self.model.parse_losses(losses)[0])
            self.model.update_teacher(0.996)

        return step


def batch_of(crops: MultiCrop, batch: int) -> dict[str, Any]:
    """A collated batch of noise with the colour parameters of real ones."""
    rng = np.random.default_rng(0)
    views = len(crops.global_crops)
    drawn = [
        color_parameters(crops.recipes, rng.random((len(crops.recipes), DRAWS))[:, -10:])
        for _ in range(batch)
    ]
    parameters = torch.from_numpy(np.stack(drawn))
    generator = torch.Generator().manual_seed(0)
    sides = (crops.global_crops[0].height_width, crops.local_crop.height_width)
    noise = [
        torch.randint(0, 256, (batch, count, 3, *size), dtype=torch.uint8, generator=generator)
        for count, size in zip((views, crops.local_count), sides, strict=True)
    ]
    return {
        "global_crops": noise[0],
        "local_crops": noise[1],
        "global_parameters": parameters[:, :views],
        "local_parameters": parameters[:, views:],
        "seed": torch.arange(batch),
    }


class CallCounter(TorchDispatchMode):
    """Counts calls of PyTorch's operators, by the part of the step that makes them."""

    def __init__(self) -> None:
        super().__init__()
        self.part = "other"
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[self.part] += 1
        return func(*args, **(kwargs or {}))

    @contextmanager
    def during(self, part: str) -> Iterator[None]:
        """What is called within belongs to ``part``."""
        before, self.part = self.part, part
        try:
            yield
        finally:
            self.part = before

    def watch(self, owner: Any, name: str, part: str) -> None:
        """Calls of ``owner.name`` are ``part``."""
        original = getattr(owner, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            with self.during(part):
                return original(*args, **kwargs)

        object.__setattr__(owner, name, watched)


def count_calls(step: MSTStep) -> dict[str, int]:
    """Calls of operators in one step, by part; the trunks' are apart from the rest."""
    step()  # states of the optimizer are made
    counter, model = CallCounter(), step.model
    counter.watch(model.data_preprocessor, "forward", "colours and normalisation")
    counter.watch(model, "loss", "masks, heads and losses")
    counter.watch(model, "forward_trunk", "trunks, forward")
    counter.watch(model.distillation, "forward", "self-distillation loss")
    if model.decoder is not None:
        counter.watch(model.decoder, "forward", "decoder")
    counter.watch(step.wrapper, "backward", "backward pass")
    counter.watch(step.wrapper, "step", "clipping and optimizer")
    counter.watch(model, "update_teacher", "teacher and center")
    with counter:
        step()
    return dict(counter.counts)


def profile(step: Callable[[], None], device: torch.device, rows: int = 12) -> None:
    """Print the operators of one step that take longest themselves."""
    step()
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as found:
        step()
        wait(device)
    order = f"self_{device.type}_time_total"
    print(found.key_averages().table(sort_by=order, row_limit=rows, max_name_column_width=60))


def peak_gib(device: torch.device) -> float:
    """Of this process, so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return peak_of_process()


def main(argv: list[str] | None = None) -> None:
    """Time, count or profile."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default=str(CONFIG))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--calls", action="store_true")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--only", choices=(WHOLE, READY, PEER), help=argparse.SUPPRESS)
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    MMLogger.get_instance("mmengine", log_level="WARNING")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    cfg = load_config(args.config, dict(option.split("=", 1) for option in args.cfg_options))
    settings = {key: value for key, value in vars(args).items() if key not in ("calls", "profile", "only")}
    if args.calls:
        calls = count_calls(MSTStep(cfg, args.batch, device, args.dtype))
        rows = [{"part": part, "calls": count} for part, count in calls.items()]
        publish("pretrain_step, calls", rows, device, **settings)
        return
    if args.profile:
        profile(MSTStep(cfg, args.batch, device, args.dtype), device)
        return
    variants = steps(cfg, args, device, [args.only] if args.only else None)
    if args.only:
        for step in variants.values():
            for _ in range(3):
                step()
        wait(device)
        print(json.dumps({"peak_gib": peak_gib(device)}))
        return
    seconds = in_turn(variants, args.rounds, device)
    memory = {name: memory_of(name, argv) for name in variants}
    peer = PEER if PEER in variants else WHOLE
    rows = [{**row, "peak GiB": round(memory[row["variant"]], 2)} for row in table(seconds, peer, args.batch)]
    publish("pretrain_step", rows, device, **settings)


def steps(
    cfg: Any, args: argparse.Namespace, device: torch.device, names: list[str] | None
) -> dict[str, Callable[[], None]]:
    """The variants asked for, by name; all that there are by default."""
    ours = MSTStep(cfg, args.batch, device, args.dtype)
    made: dict[str, Callable[[], None]] = {}
    names = names or [WHOLE, READY, *([PEER] if cfg.model.backbone.name.startswith("vit") else [])]
    if PEER in names:
        from benchmarks.dino_step import DINOStep

        views = ours.views()
        step = DINOStep(cfg.model.backbone.name, cfg.model.head.prototypes, device, DTYPES[args.dtype])
        if names == [PEER]:
            del ours.model, ours.wrapper  # its memory is measured
        made[PEER] = lambda: step(*views)
    if READY in names:
        made[READY] = ours.without_colours()
    if WHOLE in names:
        made[WHOLE] = ours
    return {name: made[name] for name in names}


def memory_of(variant: str, argv: list[str] | None) -> float:
    """Peak memory of a process that makes three of its steps, in GiB."""
    command = [sys.executable, __file__, *(sys.argv[1:] if argv is None else argv), "--only", variant]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1])["peak_gib"])


if __name__ == "__main__":
    run_cli(main)

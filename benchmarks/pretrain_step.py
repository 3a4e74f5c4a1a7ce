"""One step of MST pretraining beside DINO's: time, peak memory, and the calls that it is made of.

    pip install lightly
    python benchmarks/pretrain_step.py [--config configs/pretrain/mst_deit-s_8xb128-300e_in1k.py] [--batch 8]
        [--dtype float32|bfloat16] [--rounds 5] [--threads 2] [--ceiling] [--calls] [--profile]
        [--cfg-options KEY=VALUE ...]

Crops are noise. ``MST`` is the whole step: colours on the device, teacher, mask, student, decoder, losses, backward
pass, clipping, optimizer, teacher's step. ``MST, colours done`` leaves the first out, as DINO's step does (see
dino_step.py; for a Swin there is no peer). Each variant's peak memory is measured in a separate process.

``--ceiling`` times the whole step beside the trunks alone: forward and backward pass of the student's, forward pass of
the teacher's, on the same crops without their colours, no mask, head, decoder, loss or optimizer; and says which share
of that speed the step reaches. ``--calls`` counts the calls of PyTorch's operators instead, part by part, and on a GPU
what one step asks of it: kernels launched, times the host waits, copies of memory that is not pinned. ``--profile``
lists the operators that take longest.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import MMLogger
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import mst_pretrain  # noqa: F401  registers the method
from mst_pretrain.data.multicrop import MultiCrop
from mst_pretrain.method.backbones import choose_attention
from mst_pretrain.runtime.config import load_config, read_options
from mst_pretrain.runtime.errors import run_cli
from mst_pretrain.training.single_step import MOMENTUM, MSTStep, noise

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.timing import in_turn, peak_of_process, publish, ratio, table, wait

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "configs/pretrain/mst_deit-s_8xb128-300e_in1k.py"
WHOLE, READY, PEER, CEILING = "MST", "MST, colours done", "DINO's step", "trunks alone"
DTYPES = {"float32": None, "bfloat16": torch.bfloat16}
# Names of the CUDA runtime and driver, and of copies, as PyTorch's profiler has them
ON_GPU = {
    "kernels launched": re.compile(r"cu(da)?(LaunchKernel|LaunchCooperativeKernel|GraphLaunch)\w*"),
    "times the host waits": re.compile(r"cu(da)?(Device|Stream|Event|Ctx)Synchronize\w*"),
    "copies of memory that is not pinned": re.compile(r"Memcpy .*Pageable.*"),
}


def step_of(cfg: Any, batch: int, device: torch.device, dtype: str) -> MSTStep:
    """The step of a config on noise, in ``float32`` or ``bfloat16``."""
    cfg.optim_wrapper.dtype = dtype
    return MSTStep(cfg, noise(MultiCrop(**cfg.train_dataloader.dataset.crops), batch), device)


def views_of(step: MSTStep) -> tuple[Tensor, Tensor]:
    """The crops as the model sees them, without augmentation."""
    ready = step.model.data_preprocessor(step.data, training=False)
    return ready["global_views"], ready["local_views"]


def without_colours(step: MSTStep) -> Callable[[], None]:
    """The step on crops whose colours are done."""
    ready = step.model.data_preprocessor(step.data, training=False)

    def ready_step() -> None:
        with step.wrapper.optim_context(step.model):
            losses = step.model(**ready)
        step.wrapper.update_params(step.model.parse_losses(losses)[0])
        step.model.update_teacher(MOMENTUM)

    return ready_step


def trunks_alone(step: MSTStep) -> Callable[[], None]:
    """The student's trunk forward and back on all crops, the teacher's forward on the global ones."""
    model, views = step.model, [images.flatten(0, 1) for images in views_of(step) if len(images)]

    def trunks() -> None:
        with step.wrapper.optim_context(model):
            choose_attention(model, views[0].device)
            with torch.no_grad():
                model.forward_trunk(model.teacher.backbone, views[0])
            pooled = [model.forward_trunk(model.student.backbone, images).pooled for images in views]
        torch.cat(pooled).float().sum().backward()
        step.wrapper.zero_grad()

    return trunks


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


def calls_on_gpu(step: Callable[[], None]) -> dict[str, int]:
    """What one step asks of the GPU; the profiler's own calls are taken off."""

    def recorded(call: Callable[[], None]) -> Counter[str]:
        activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
        with torch.profiler.profile(activities=activities) as found:
            call()
        return Counter({event.key: event.count for event in found.key_averages()})

    recorded(step)  # the first time, kernels are loaded and chosen
    return by_kind(recorded(step) - recorded(lambda: None))


def by_kind(counts: Mapping[str, int]) -> dict[str, int]:
    """Counts of the profiler's events, by name, to counts of what :data:`ON_GPU` names."""
    return {
        kind: sum(count for name, count in counts.items() if names.fullmatch(name))
        for kind, names in ON_GPU.items()
    }


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
    parser.add_argument("--ceiling", action="store_true")
    parser.add_argument("--calls", action="store_true")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--only", choices=(WHOLE, READY, PEER, CEILING), help=argparse.SUPPRESS)
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    MMLogger.get_instance("mmengine", log_level="WARNING")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    options = dict(option.split("=", 1) for option in args.cfg_options)
    cfg = load_config(args.config, read_options(args.config, options))
    settings = {key: value for key, value in vars(args).items() if key not in ("calls", "profile", "only")}
    if args.calls:
        step = step_of(cfg, args.batch, device, args.dtype)
        calls = (calls_on_gpu(step) if device.type == "cuda" else {}) | count_calls(step)
        rows = [{"part": part, "calls": count} for part, count in calls.items()]
        publish("pretrain_step, calls", rows, device, **settings)
        return
    if args.profile:
        profile(step_of(cfg, args.batch, device, args.dtype), device)
        return
    names = [WHOLE, CEILING] if args.ceiling else None
    variants = steps(cfg, args, device, [args.only] if args.only else names)
    if args.only:
        for step in variants.values():
            for _ in range(3):
                step()
        wait(device)
        print(json.dumps({"peak_gib": peak_gib(device)}))
        return
    seconds = in_turn(variants, args.rounds, device)
    memory = {name: memory_of(name, argv) for name in variants}
    peer = next(name for name in (CEILING, PEER, WHOLE) if name in variants)
    rows = [{**row, "peak GiB": round(memory[row["variant"]], 2)} for row in table(seconds, peer, args.batch)]
    if args.ceiling:
        share = 100 * ratio(seconds, CEILING, WHOLE)
        print(f"the whole step reaches {share:.1f} % of the speed of its trunks alone")
        settings["per cent of the ceiling"] = round(share, 1)
    publish("pretrain_step", rows, device, **settings)


def steps(
    cfg: Any, args: argparse.Namespace, device: torch.device, names: list[str] | None
) -> dict[str, Callable[[], None]]:
    """The variants asked for, by name; all that there are by default."""
    ours = step_of(cfg, args.batch, device, args.dtype)
    made: dict[str, Callable[[], None]] = {}
    names = names or [WHOLE, READY, *([PEER] if cfg.model.backbone.name.startswith("vit") else [])]
    if PEER in names:
        from benchmarks.dino_step import DINOStep

        views = views_of(ours)
        step = DINOStep(cfg.model.backbone.name, cfg.model.head.prototypes, device, DTYPES[args.dtype])
        if names == [PEER]:
            del ours.model, ours.wrapper  # its memory is measured
        made[PEER] = lambda: step(*views)
    if READY in names:
        made[READY] = without_colours(ours)
    if CEILING in names:
        made[CEILING] = trunks_alone(ours)
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

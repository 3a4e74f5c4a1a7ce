"""Two processes that synchronise batch norm beside one process with twice the batch, in float64.

This file is its own worker: ``python test_two_processes.py FOLDER RANK`` trains one of the two.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.model import MMDistributedDataParallel
from torch import Tensor, distributed, nn
from torch.distributed.nn.functional import all_reduce

from mst_pretrain.method.mst import MST
from mst_pretrain.training.optim import MSTOptimWrapperConstructor
from mst_pretrain.training.schedule_and_teacher import ScheduleHook, TeacherHook
from tests.forked import outputs_of, two_workers

STEPS, MICRO_BATCHES, IMAGES = 3, 2, 4  # images of a micro-batch over all processes
SCHEDULE: dict[str, Any] = dict(base_lr=1.0, warmup_epochs=0, momentum=(0.8, 1.0), freeze_last_layer_epochs=0)


def model_of(norm: str) -> MST:
    """Head and decoder with batch norm; every weight drawn."""
    backbone = dict(
        name="vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=16, depth=2, num_heads=2
    )
    model = MST(
        backbone,
        dict(prototypes=12, hidden_dim=12, bottleneck_dim=8, norm=norm, norm_last_layer=False),
        masking=dict(mode="attention", num=2, prob=0.6),
        decoder=dict(width=8, min_width=4),
    )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.rand(parameter.shape, generator=generator) - 0.5
            parameter.copy_(1 + noise if "norm" in name and name.endswith("weight") else 0.8 * noise)
    return model.double().train()


def batch_of(step: int, part: slice) -> dict[str, Tensor]:
    """The images of ``part`` of a micro-batch."""
    generator = torch.Generator().manual_seed(step)
    draw: dict[str, Any] = dict(generator=generator, dtype=torch.float64)
    views = torch.randn(2, IMAGES, 3, 32, 32, **draw), torch.randn(2, IMAGES, 3, 16, 16, **draw)
    seeds = torch.randint(2**60, (IMAGES,), generator=generator)
    return {"global_views": views[0][:, part], "local_views": views[1][:, part], "seeds": seeds[part]}


def train(model: MST, wrapped: Any, part: slice) -> dict[str, Tensor]:
    """Three steps of two micro-batches with the run's own hooks and wrapper; parameters and centre after them."""
    wrapper = MSTOptimWrapperConstructor(
        {"type": "MSTOptimWrapper", "optimizer": {"type": "AdamW"}, "clip_grad_per_tensor": 0.3}
    )(wrapped)
    wrapper._accumulative_counts = MICRO_BATCHES
    wrapper.initialize_count_status(wrapped, 0, STEPS * MICRO_BATCHES)
    schedule, teacher = ScheduleHook(**SCHEDULE), TeacherHook()
    runner: Any = SimpleNamespace(
        model=wrapped,
        optim_wrapper=wrapper,
        hooks=[schedule, teacher],
        train_loop=SimpleNamespace(schedule_iters=6, iters_per_epoch=2, global_batch=MICRO_BATCHES * IMAGES),
        logger=SimpleNamespace(info=lambda text: None),
        message_hub=SimpleNamespace(update_scalars=lambda values: None),
        iter=0,
        work_dir="",
    )
    for hook in (schedule, teacher):
        hook.before_train(runner)
    for runner.iter in range(STEPS):
        schedule.before_train_iter(runner, runner.iter)
        for micro in range(MICRO_BATCHES):
            data = batch_of(10 * runner.iter + micro, part)
            logged = wrapped.train_step(data, optim_wrapper=wrapper)
        teacher.after_train_iter(runner, runner.iter, outputs={"loss": logged["loss"].detach()})
    state = {name: parameter.detach() for name, parameter in model.named_parameters()}
    return state | {"center": model.distillation.center}


def synchronised(layer: nn.modules.batchnorm._BatchNorm, x: Tensor) -> Tensor:
    """What torch's kernels for the GPU compute: mean and variance over the rows of all processes."""
    axes = [0, *range(2, x.ndim)]
    sums = all_reduce(torch.stack([x.sum(axes), (x * x).sum(axes), torch.ones_like(x).sum(axes)]))
    mean, square = sums[0] / sums[2], sums[1] / sums[2]
    scale = layer.weight / (square - mean**2 + layer.eps).sqrt()
    shape = [1, -1] + [1] * (x.ndim - 2)
    return (x - mean.view(shape)) * scale.view(shape) + layer.bias.view(shape)


def work(folder: Path, rank: int) -> None:
    """One of two processes: half of the images of every micro-batch."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign]  # as the fixture double_precision
    refusal = ""
    try:
        MMDistributedDataParallel(model_of("syncbn"), device_ids=None)
    except ValueError as error:
        refusal = str(error)
    nn.modules.batchnorm._BatchNorm.forward = synchronised  # type: ignore[method-assign, assignment]
    model = model_of("bn")
    wrapped = MMDistributedDataParallel(model, device_ids=None, broadcast_buffers=False)
    state = train(model, wrapped, slice(rank * IMAGES // 2, (rank + 1) * IMAGES // 2))
    torch.save({"state": state, "refusal": refusal}, folder / f"{rank}.pth")
    distributed.destroy_process_group()


@pytest.mark.usefixtures("double_precision")
def test_two_synchronised_processes_are_one_with_twice_the_batch(tmp_path: Path) -> None:
    """Gradients, batch statistics of head and decoder, teacher or centre would depend on the number of processes.

    torch's SyncBatchNorm refuses the CPU (and does not normalise each process by itself); its place is taken by the
    same formula, so all but its kernels is tested. In the one process it is itself.
    """
    processes = two_workers(__file__, tmp_path)
    model = model_of("syncbn")
    start = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    one = train(model, model, slice(None))
    outputs_of(processes)
    for rank in range(2):
        result = torch.load(tmp_path / f"{rank}.pth", weights_only=True)
        assert not result["refusal"] or "GPU" in result["refusal"]
        assert set(result["state"]) == set(one)
        for name, value in one.items():
            torch.testing.assert_close(result["state"][name], value, rtol=1e-8, atol=1e-8, msg=name)
    assert all(not torch.equal(one[name], value) for name, value in start.items())


if __name__ == "__main__":
    work(Path(sys.argv[1]), int(sys.argv[2]))

"""One step of Mask R-CNN on two processes (gloo) beside one process with both images, in float64.

The model and optimiser are configs/coco/mask_rcnn_mst.py at toy size. DistributedDataParallel takes the mean of the
ranks' gradients, while each loss is divided by what its own rank counts. The two agree where every rank counts the
same, so this is the setting in which the equation holds, and it leaves out nothing that should agree:

- images of one size (a batch is padded to its largest image), one image per rank;
- both samplers always find their full number per image: 32 anchors, 16 regions of which 4 are positive. RPN and box
  losses are divided by these, the mask loss by the 4. With fewer positives on a rank its mask loss would weigh more;
- samplers take the first candidates instead of random ones, and there is no stochastic depth: no random numbers;
- no batch norm: Swin, FPN and the heads have none. (That of the ViT's pyramid needs SyncBN, as the configs set it.)

This file is its own worker: ``python test_two_ranks.py FOLDER RANK``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS
from mmengine.structures import InstanceData
from torch import Tensor, distributed, nn

import mst_transfer  # noqa: F401, registers
from mst_pretrain.runtime.config import import_custom_modules, load_config
from tests.forked import outputs_of, two_workers

ROOT = Path(__file__).parents[3]
SIDE, STEPS = 64, 2
TOY: dict[str, Any] = {
    "+model.backbone.model_args": {"embed_dim": 8, "depths": [1, 2, 1, 1], "num_heads": [1, 2, 2, 2]},
    "model.backbone.drop_path_rate": 0.0,
    "model.backbone.init_cfg": None,
    "model.neck.in_channels": [8, 16, 32, 64],
    "model.neck.out_channels": 8,
    "model.rpn_head.in_channels": 8,
    "model.rpn_head.feat_channels": 8,
    "model.rpn_head.anchor_generator.scales": [2],
    "model.roi_head.bbox_roi_extractor.out_channels": 8,
    "model.roi_head.mask_roi_extractor.out_channels": 8,
    "model.roi_head.bbox_head.in_channels": 8,
    "model.roi_head.bbox_head.fc_out_channels": 16,
    "model.roi_head.bbox_head.num_classes": 3,
    "model.roi_head.mask_head.in_channels": 8,
    "model.roi_head.mask_head.conv_out_channels": 8,
    "model.roi_head.mask_head.num_convs": 1,
    "model.roi_head.mask_head.num_classes": 3,
    "model.train_cfg.rpn.sampler.num": 32,
    "model.train_cfg.rpn_proposal.max_per_img": 60,
    "model.train_cfg.rcnn.sampler.num": 16,
}
BOXES = [  # of the two images; at least the 4 positives that the sampler wants
    [[4, 6, 30, 40], [20, 10, 60, 50], [2, 30, 28, 62], [34, 34, 62, 60], [10, 4, 50, 24]],
    [[8, 2, 36, 30], [30, 20, 63, 63], [1, 40, 20, 60], [14, 14, 50, 44]],
]


def first_candidates(sampler: Any, gallery: Tensor, num: int) -> Tensor:
    """In place of mmdet's random choice."""
    return gallery[:num]


def parts() -> tuple[nn.Module, Any]:
    """Model and optimizer wrapper of the config, every weight drawn, in float64."""
    cfg = load_config(ROOT / "configs/coco/mask_rcnn_mst.py", TOY)
    import_custom_modules(cfg)
    cfg.optim_wrapper.type = "OptimWrapper"  # as the runner makes it on a CPU
    with MODELS.switch_scope_and_registry("mmdet") as registry:
        model = registry.build(cfg.model)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        scale = 1 / parameter[0].numel() ** 0.5 if parameter.ndim > 1 else 0.1
        shift = 1.0 if parameter.ndim == 1 and name.endswith("weight") else 0.0
        parameter.data = noise * scale + shift
    model.rpn_head.rpn_reg.weight.data *= 0.05  # proposals stay near their anchors
    return model.double().train(), cfg.optim_wrapper


def batch_of(step: int, images: slice) -> dict[str, Any]:
    """Images of noise with boxes, and masks that fill half of them."""
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks

    generator = torch.Generator().manual_seed(step)
    pixels = torch.randint(256, (2, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8)
    samples = []
    for index, boxes in enumerate(BOXES):
        masks = np.zeros((len(boxes), SIDE, SIDE), np.uint8)
        for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
            mask[top : (top + bottom) // 2, left:right] = 1
        shape = {"img_shape": (SIDE, SIDE), "ori_shape": (SIDE, SIDE), "pad_shape": (SIDE, SIDE)}
        sample = DetDataSample(metainfo={**shape, "scale_factor": (1.0, 1.0), "img_id": index})
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor(boxes, dtype=torch.float64),
            labels=torch.arange(len(boxes)) % 3,
            masks=BitmapMasks(masks, SIDE, SIDE),
        )
        samples.append(sample)
    return {"inputs": list(pixels)[images], "data_samples": samples[images]}


def train(model: nn.Module, wrapped: Any, optimizer_cfg: Any, images: slice) -> dict[str, Any]:
    """Two steps; losses of the last one, gradients of the first, weights after both."""
    wrapper = build_optim_wrapper(wrapped, optimizer_cfg)
    counts: list[tuple[int, int]] = []
    roi_sampler = model.roi_head.bbox_sampler
    sample = roi_sampler.sample

    def counted(*args: Any, **kwargs: Any) -> Any:
        result = sample(*args, **kwargs)
        counts.append((len(result.pos_inds), len(result.neg_inds)))
        return result

    roi_sampler.sample = counted
    gradients: dict[str, Tensor] = {}

    def keep(*_: Any) -> None:
        for name, parameter in model.named_parameters():
            gradients.setdefault(name, parameter.grad.clone())

    wrapper.optimizer.register_step_pre_hook(keep)
    for step in range(STEPS):
        log = wrapped.train_step(batch_of(step, images), optim_wrapper=wrapper)
    weights = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    losses = {name: value.detach() for name, value in log.items()}
    return {"gradients": gradients, "weights": weights, "losses": losses, "counts": counts}


def work(folder: Path, rank: int) -> None:
    """One of two processes: one of the images."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    from mmdet.models.task_modules.samplers import RandomSampler

    RandomSampler.random_choice = first_candidates
    model, optimizer_cfg = parts()
    wrapped = MMDistributedDataParallel(model, device_ids=None, broadcast_buffers=False)
    torch.save(train(model, wrapped, optimizer_cfg, slice(rank, rank + 1)), folder / f"{rank}.pth")
    distributed.destroy_process_group()


def test_two_ranks_are_one_with_both_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run on more GPUs would train another detector: rates, gradients or the mean over the ranks would be wrong."""
    from mmdet.models.task_modules.samplers import RandomSampler

    processes = two_workers(__file__, tmp_path)
    monkeypatch.setattr(RandomSampler, "random_choice", first_candidates)
    model, optimizer_cfg = parts()
    start = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    one = train(model, model, optimizer_cfg, slice(None))
    outputs_of(processes)
    ranks = [torch.load(tmp_path / f"{rank}.pth", weights_only=True) for rank in range(2)]
    # the setting of the equation: every image gives 4 positive and 12 negative regions
    assert one["counts"] == [(4, 12)] * 2 * STEPS and all(r["counts"] == [(4, 12)] * STEPS for r in ranks)
    # mmdet computes two of the losses in float32; a step of AdamW is about 1e-4
    for kind, rtol, atol in (("gradients", 1e-6, 1e-7), ("weights", 0.0, 1e-8)):
        for rank in ranks:
            assert set(rank[kind]) == set(one[kind])
            for name, value in one[kind].items():
                torch.testing.assert_close(
                    rank[kind][name], value, rtol=rtol, atol=atol, msg=f"{kind} {name}"
                )
    for name in ("loss_rpn_cls", "loss_rpn_bbox", "loss_cls", "loss_bbox", "loss_mask", "loss"):
        both = [rank["losses"][name] for rank in ranks]
        torch.testing.assert_close(sum(both) / 2, one["losses"][name], rtol=1e-6, atol=1e-6, msg=name)
        assert (both[0] - both[1]).abs() > 1e-4  # the ranks saw different images
    for name, value in start.items():
        assert not torch.equal(one["weights"][name], value), name


if __name__ == "__main__":
    work(Path(sys.argv[1]), int(sys.argv[2]))

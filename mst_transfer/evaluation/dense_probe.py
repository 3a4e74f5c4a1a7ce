"""What tools/eval_dense.py does once its arguments are read."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mmengine.config import Config
from timm.models.swin_transformer import SwinTransformer

from mst_pretrain.evaluation.arguments import precision_of
from mst_pretrain.evaluation.features import block_widths
from mst_pretrain.evaluation.ranks import publish, rank, save_arrays, world_size
from mst_pretrain.evaluation.trunk import RANDOM, Origin, load_trunk
from mst_pretrain.method.backbones import Trunk
from mst_pretrain.runtime.config import load_config, read_options
from mst_pretrain.runtime.devices import run_in
from mst_pretrain.runtime.environment import environment_info
from mst_pretrain.runtime.errors import UserError
from mst_pretrain.training.launch import on_first_rank, prepare, run
from mst_pretrain.training.schedule_and_teacher import unwrap
from mst_toolkit.resources import resources

from ..data.pair_rules import cityscapes_present_classes
from ..training.checks import check_training
from .baselines import PRIOR
from .iou_metric import MSTIoUMetric
from .trivial import TrivialBaselines, baseline_metrics

TAPS = 4  # blocks of a ViT
OtherLayout = Callable[[Config, str, int], tuple[str, ...] | None]


def put_backbone(cfg: Config, trunk: Trunk, origin: Origin) -> None:
    """Make the probe's backbone and the width of its linear layer those of a trunk of the same kind."""
    swin = isinstance(trunk, SwinTransformer)
    backbone = cfg.model.backbone
    if backbone.type != ("MSTSwin" if swin else "MSTVisionTransformer"):
        raise UserError(
            f"{cfg.filename} probes a {backbone.type}, but {origin.model} is another kind. Leave --config out."
        )
    backbone.model, backbone.model_args = origin.model, origin.model_args
    backbone.init_cfg = None
    if origin.checkpoint != RANDOM:
        backbone.init_cfg = dict(type="Pretrained", checkpoint=origin.checkpoint, prefix=origin.prefix)
    widths = [int(layer.blocks[0].dim) for layer in trunk.layers] if swin else block_widths(trunk)
    taps = len(widths) if swin else TAPS
    backbone.frozen_stages, backbone.out_indices = len(widths), tuple(range(len(widths)))[-taps:]
    widths = widths[-taps:]
    head = cfg.model.decode_head
    head.in_channels, head.in_index, head.channels = widths, list(range(len(widths))), sum(widths)


def put_classes(cfg: Config, classes: tuple[str, ...]) -> None:
    """Make data and linear layer those of the classes that the data has."""
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.metainfo = dict(classes=classes)
    cfg.model.decode_head.num_classes = len(classes)


def matrices_of(runner: Any) -> dict[str, Any]:
    """Names, classes, confusion matrix of every image, and IoU of the baseline in per cent by class."""
    metric = next(m for m in runner.test_evaluator.metrics if isinstance(m, MSTIoUMetric))
    assert metric.matrices is not None and metric.scores is not None
    dataset = runner.test_loop.dataloader.dataset
    paths = [Path(dataset.get_data_info(index)["img_path"]) for index in range(len(dataset))]
    found: dict[str, Any] = {
        "images": [f"{path.parent.name}/{path.name}" for path in paths],
        "classes": list(metric.scores.classes),
        "matrices": metric.matrices,
    }
    if metric.baseline is not None:
        values = [entry["IoU"] for entry in metric.baseline.per_class.values()]
        found["baseline"] = [float("nan") if value is None else 100 * value for value in values]
    return found


def evaluate_dense(args: argparse.Namespace, other_layout: OtherLayout) -> None:
    """Check everything, train the linear layer, test, print one JSON line.

    Args:
        args: Those of the tool.
        other_layout: Puts data in another layout than Cityscapes' into a config, of a folder and a seed; it returns
            the classes, or None of Cityscapes' layout.
    """
    trunk, origin = load_trunk(args.checkpoint, args.prefix, args.model, args.model_args, args.seed)
    kind = "swin" if isinstance(trunk, SwinTransformer) else "vit"
    args.config = args.config or str(resources() / f"configs/probe/dense_probe_{kind}.py")
    args.cfg_options = read_options(args.config, args.cfg_options, "tools/eval_dense.py")
    cfg = load_config(args.config, {"data_root": args.root, **args.cfg_options})
    put_backbone(cfg, trunk, origin)
    cfg.randomness = dict(seed=args.seed)
    prepare(cfg, args)

    found = other_layout(cfg, args.root, args.seed)
    classes = found or cityscapes_present_classes(args.root, "train")
    if found is None:
        put_classes(cfg, classes)
    on_first_rank(lambda: check_training(cfg))

    def train_and_test(runner: Any) -> None:
        model = unwrap(runner)
        device = next(model.parameters()).device
        dtype = precision_of(args, device)
        model.backbone.forward = run_in(dtype, device, model.backbone.forward)
        runner.register_hook(TrivialBaselines())
        runner.train()
        metrics = runner.test()
        trivial = baseline_metrics(runner.test_evaluator.metrics)
        if args.save and rank() == 0:
            save_arrays(matrices_of(runner), args.save)
        publish(
            {
                "protocol": "dense-probe",
                **asdict(origin),
                "config": args.config,
                "cfg_options": {key: str(value) for key, value in args.cfg_options.items()},
                "data": args.root,
                "classes": list(classes),
                "iterations": cfg.train_cfg.max_iters,
                "batch": cfg.train_dataloader.batch_size * world_size(),
                "lr": cfg.optim_wrapper.optimizer.lr,
                "seed": args.seed,
                "dtype": dtype,
                **{name: round(float(metrics[name]), 3) for name in ("mIoU", "mAcc", "aAcc")},
                "baseline": {"name": PRIOR, **{name: round(value, 3) for name, value in trivial.items()}},
                **environment_info(),
            },
            args.out,
        )

    run(cfg, train_and_test)

"""From a plan to the two files of a run: ``recipe.py``, complete, and ``config.py``, short and the user's to edit.

Each function starts from a shipped config and changes what the data, the start and the plan say: a value that is not
named here is the published recipe's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mst_pretrain.runtime.errors import UserError

from .plan import RunPlan, shown

if TYPE_CHECKING:
    from mmengine.config import Config

    from .layouts import Found
    from .starts import Start

PIPELINE = (
    "train_pipeline",
    "test_pipeline",
    "short_sides",
    "crop_size",
    "norm_cfg",
    "tta_pipeline",
    "tta_model",
)


def base_config(path: str) -> Config:
    """A shipped config, without the variables that nothing reads any more."""
    from mst_pretrain.runtime.config import load_config

    cfg = load_config(path)
    for name in (*PIPELINE, "auto_scale_lr"):
        cfg.pop(name, None)
    cfg.run_folder = True
    return cfg


def pretraining(plan: RunPlan, start: Start | None, model: str, data: str) -> Config:
    """The config of a pretraining: the recipe for small data, or ImageNet's."""
    family = "swin-t" if plan["architecture"].startswith("swin") else "deit-s"
    cfg = base_config(f"configs/pretrain/mst_{family}_{plan['recipe']}.py")
    arguments = dict(start.model_args) if start is not None else {}
    cfg.model.backbone = dict(name=model, drop_path_rate=cfg.model.backbone.drop_path_rate, **arguments)
    if start is not None and start.path is not None:
        cfg.model.init_from = str(start.path)
        if start.positions is not None:
            cfg.model.backbone.positions = start.positions
    cfg.data_root = cfg.train_dataloader.dataset.data_root = data
    cfg.train_dataloader.batch_size = plan["batch_size"]
    set_workers(cfg.train_dataloader, plan["workers"])
    size = plan["image_size"]
    crops = cfg.train_dataloader.dataset.crops
    patch = start.architecture.patch_size if start is not None else 16
    for crop in crops.global_crops:
        crop.size = size
    if size != 224 or crops.local_crop.size % patch:
        crops.local_crop.size = local_size(size, patch)
    if size != 224 and "img_size" not in arguments:
        cfg.model.backbone.img_size = size
    cfg.train_cfg.max_epochs, cfg.train_cfg.max_iters = None, plan["steps"]
    cfg.optim_wrapper.dtype = plan["precision"] if plan["precision"] != "float16" else "float32"
    if plan["precision"] == "float16":
        cfg.optim_wrapper.type = "MSTAmpOptimWrapper"
        cfg.optim_wrapper.loss_scale = "dynamic"
    schedule = cfg.default_hooks.schedule
    epoch = plan["images"] / (plan["batch_size"] * plan["gpus"])
    for name in ("warmup_epochs", "freeze_last_layer_epochs", "teacher_temperature_epochs"):
        most = 0.1 * plan["steps"] / epoch  # a short run warms up in a tenth of its steps
        schedule[name] = round(min(schedule.get(name, 0.0), most), 4)
    cfg.evaluation.every_epochs = plan["measure_every"] / max(1, int(epoch))
    cfg.evaluation.knn = plan["knn"]
    cfg.default_hooks.logger.interval = interval(plan["steps"])
    cfg.default_hooks.checkpoint.interval = max(1, min(2000, plan["steps"] // 5))
    cfg.randomness.seed = plan.seed
    return cfg


def local_size(size: int, patch: int) -> int:
    """Side of the local crops: 3/7 of the global ones as 96 of 224, in whole patches."""
    return max(patch, round(size * 96 / 224 / patch) * patch)


def interval(steps: int) -> int:
    """Steps between lines of the log: 50 in a long run, all of a very short one."""
    return max(1, min(50, steps // 50))


def set_workers(loader: Any, workers: int) -> None:
    """Loading processes of a data loader."""
    loader.num_workers = workers
    loader.persistent_workers = workers > 0


def taps(depth: int, patch: int) -> tuple[int, ...]:
    """Blocks of a ViT that feed the pyramid: the last of each quarter, fewer where a stride would be below 4 px."""
    quarters = sorted({math.ceil(depth * quarter / 4) - 1 for quarter in (1, 2, 3, 4)})
    if depth == 12:
        quarters = [3, 5, 7, 11]  # [code: iBOT]
    fine = sum(patch * scale < 4 for scale in (0.25, 0.5, 1, 2))
    return tuple(quarters[fine:] or quarters[-1:])


def use_backbone(cfg: Config, start: Start) -> list[int]:
    """Put the start's architecture into a detector or segmentor.

    Returns:
        Strides of its maps, finest first.
    """
    backbone, model = cfg.model.backbone, start.architecture.model
    backbone.model = start.model
    if start.model_args:
        backbone.model_args = dict(start.model_args)
    backbone.init_cfg = None
    if start.path is not None:
        backbone.init_cfg = dict(type="Pretrained", checkpoint=str(start.path), prefix=start.prefix or "")
        if start.positions is not None:
            backbone.positions = start.positions
    if start.is_swin:
        widths = [int(model.num_features / 2 ** (3 - stage)) for stage in range(4)]
        strides = [start.architecture.patch_size * 2**stage for stage in range(4)]
    else:
        depth, patch = len(model.blocks), start.architecture.patch_size
        backbone.out_indices = taps(depth, patch)
        count = len(backbone.out_indices)
        widths = [int(model.embed_dim)] * count
        strides = [int(patch * scale) for scale in (0.25, 0.5, 1, 2)[-count:]]
        cfg.optim_wrapper.paramwise_cfg.num_layers = depth
    if "neck" in cfg.model:
        cfg.model.neck.in_channels = widths
        cfg.model.neck.num_outs = len(strides) + 1
    else:
        heads = [cfg.model.decode_head, cfg.model.auxiliary_head]
        heads[0].in_channels, heads[0].in_index = widths, list(range(len(widths)))
        third = max(0, len(widths) - 2)
        heads[1].in_channels, heads[1].in_index = widths[third], third
    return strides


def set_schedule(cfg: Config, plan: RunPlan, milestones: bool) -> None:
    """Length, rate, warm-up, validations, logging and seed of a fine-tuning."""
    steps, warm_up = plan["steps"], plan["warm_up"]
    cfg.train_cfg = dict(
        type="ExactIterLoop", max_iters=steps, val_begin=1, val_interval=plan["validate_every"]
    )
    ramp = dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=warm_up)
    if milestones:
        ends = [round(steps * 8 / 12), round(steps * 11 / 12)]
        fall = dict(type="MultiStepLR", milestones=ends, gamma=0.1, by_epoch=False, begin=0, end=steps)
    else:
        fall = dict(
            type="PolyLR", power=1.0, eta_min=0.0, by_epoch=False, begin=warm_up, end=max(steps, warm_up + 1)
        )
    cfg.param_scheduler = [ramp, fall]
    cfg.optim_wrapper.optimizer.lr = plan["learning_rate"]
    cfg.default_hooks.logger.update(interval=interval(steps), log_metric_by_epoch=False)
    cfg.default_hooks.checkpoint.update(by_epoch=False, interval=plan["validate_every"])
    cfg.default_hooks.checkpoint.update(save_best=plan["best"], rule="greater")
    cfg.log_processor.update(by_epoch=False)
    cfg.randomness.seed = plan.seed
    for name in ("train_dataloader", "val_dataloader", "test_dataloader"):
        set_workers(cfg[name], plan["workers"])
    cfg.train_dataloader.batch_size = plan["batch_size"]
    precision = plan["precision"]
    if precision == "float32":
        cfg.optim_wrapper.type = "OptimWrapper"
    elif precision in ("float16", "bfloat16"):
        cfg.optim_wrapper.update(type="AmpOptimWrapper", dtype=precision)
        cfg.optim_wrapper.loss_scale = "dynamic" if precision == "float16" else 1.0


def use_data(cfg: Config, found: Found) -> None:
    """Data sets, evaluators and classes of the three loaders; without a test part the validation part is tested."""
    from . import layouts

    test = "test" if found.test is not None else "val"
    for loader, part in (("train_dataloader", "train"), ("val_dataloader", "val"), ("test_dataloader", test)):
        pipeline = cfg[loader].dataset.pipeline
        settings = layouts.dataset(found, part)
        if part == "train" and found.task == "detection":
            settings["filter_cfg"] = dict(filter_empty_gt=True, min_size=1)
        if part != "train":
            settings["test_mode"] = True
        cfg[loader].dataset = dict(**settings, pipeline=pipeline)
    cfg.val_evaluator, cfg.test_evaluator = layouts.evaluator(found, "val"), layouts.evaluator(found, test)
    cfg.data_root = str(cfg.train_dataloader.dataset.get("data_root") or found.root)


def detection(plan: RunPlan, start: Start, found: Found) -> Config:
    """Mask R-CNN, or Faster R-CNN where the data have no polygons."""
    cfg = base_config(f"configs/coco/mask_rcnn_mst{'' if start.is_swin else '_deit-s_1x'}.py")
    strides = use_backbone(cfg, start)
    model, boxes_only = cfg.model, not plan["masks"]
    model.rpn_head.anchor_generator.strides = [*strides, 2 * strides[-1]]
    heads = [model.roi_head.bbox_head]
    extractors = [model.roi_head.bbox_roi_extractor]
    if boxes_only:
        model.type = "FasterRCNN"
        for name in ("mask_roi_extractor", "mask_head"):
            model.roi_head.pop(name)
        model.train_cfg.rcnn.pop("mask_size")
        model.test_cfg.rcnn.pop("mask_thr_binary")
        model.data_preprocessor.pad_mask = False
    else:
        heads.append(model.roi_head.mask_head)
        extractors.append(model.roi_head.mask_roi_extractor)
    for head in heads:
        head.num_classes = len(found.classes)
    for extractor in extractors:
        extractor.featmap_strides = strides
    use_data(cfg, found)
    scale_pipelines(cfg, plan["image_size"], boxes_only)
    for evaluator in (cfg.val_evaluator, cfg.test_evaluator):
        evaluator["metric"] = ["bbox"] if boxes_only else ["bbox", "segm"]
        if any(decision.key == "scored_by" for decision in plan.decisions):
            evaluator["library"] = plan["scored_by"]
    cfg.train_dataloader.sampler = dict(type="InfiniteSampler", shuffle=True)
    cfg.train_dataloader.batch_sampler = None
    set_schedule(cfg, plan, milestones=True)
    return cfg


def scale_pipelines(cfg: Config, side: int, boxes_only: bool) -> None:
    """COCO's pipelines for another short side, and without masks where there are none."""

    def scaled(size: Sequence[int]) -> tuple[int, ...]:
        return tuple(max(1, round(value * side / 800)) for value in size)

    def visit(steps: Sequence[Any]) -> None:
        for step in steps:
            if isinstance(step, list):
                visit(step)
            elif step["type"] == "RandomChoice":
                visit(step["transforms"])
            elif step["type"] == "RandomChoiceResize":
                step["scales"] = [scaled(size) for size in step["scales"]]
            elif step["type"] == "RandomCrop":
                step["crop_size"] = scaled(step["crop_size"])
            elif step["type"] == "Resize":
                step["scale"] = scaled(step["scale"])
            elif step["type"] == "LoadAnnotations" and boxes_only:
                step["with_mask"] = False

    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        visit(loader.dataset.pipeline)


def segmentation(plan: RunPlan, start: Start, found: Found) -> Config:
    """UperNet on whole images or on windows."""
    cfg = base_config(f"configs/cityscapes/upernet_mst{'' if start.is_swin else '_deit-s'}.py")
    use_backbone(cfg, start)
    for head in (cfg.model.decode_head, cfg.model.auxiliary_head):
        head.num_classes = len(found.classes)
    crop, (width, height) = tuple(plan["crop"]), plan["image_size"]
    cfg.model.data_preprocessor.size = crop
    if cfg.model.test_cfg.mode == "slide":
        stride = tuple(max(1, side * 2 // 3) for side in crop)
        cfg.model.test_cfg.update(crop_size=crop, stride=stride)
    use_data(cfg, found)
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        for step in loader.dataset.pipeline:
            if step["type"] in ("RandomResize", "Resize"):
                step["scale"] = (width, height)
            elif step["type"] == "RandomCrop":
                step["crop_size"] = crop
    set_schedule(cfg, plan, milestones=False)
    return cfg


def write(
    plan: RunPlan, cfg: Config, folder: Path, options: Mapping[str, Any], loggers: Sequence[str]
) -> Path:
    """Write ``recipe.py`` and ``config.py`` into a run's folder.

    Args:
        plan: Whose reasons become comments.
        cfg: The complete config.
        folder: Of the run.
        options: ``--cfg-options``, already in ``cfg``; they are named in ``config.py``.
        loggers: Further places for curves.

    Returns:
        ``config.py``.
    """
    from mst_pretrain.runtime.atomic import write_text

    if loggers:
        cfg.loggers = list(loggers)
    head = "# Complete recipe of this run, written by mst. Edit config.py beside it instead.\n"
    write_text(head + cfg.pretty_text, folder / "recipe.py")
    path = folder / "config.py"
    text = config_text(plan, cfg)
    write_text(text, path)
    if hidden := statements(path, options):
        write_text(text + "\n".join(["", "# --cfg-options of values that are set above", *hidden, ""]), path)
    if statements(path, options):
        raise UserError(f"--cfg-options {' '.join(options)}: {path} sets other values. Edit them there.")
    return path


def statements(path: Path, options: Mapping[str, Any]) -> list[str]:
    """Statements that give the options their values where a config sets others than its base has."""
    from mmengine.config import Config

    found, lines = Config.fromfile(path), []
    for key, value in options.items():
        node: Any = found
        steps: list[str | int] = [int(step) if step.isdecimal() else step for step in key.split(".")]
        for step in steps:
            node = node[step]
        if Config(dict(value=node)).pretty_text != Config(dict(value=value)).pretty_text:
            lines.append(f"{steps[0]}{''.join(f'[{step!r}]' for step in steps[1:])} = {value!r}")
    return lines


def config_text(plan: RunPlan, cfg: Config) -> str:
    """The user's config: variables with their reasons, and below what reads them."""
    lines = [
        f"# {plan.title}. Written by mst; yours to edit. Everything else is in recipe.py.",
        "# Train it again with: mst train THIS_FILE --work-dir NEW_FOLDER",
        '_base_ = "./recipe.py"',
        "",
    ]

    def variable(name: str, value: Any, why: str) -> None:
        lines.append(f"{name} = {value!r}  # {why}")

    summary = plan.data
    variable("data_root", cfg.data_root, summary["layout"])
    if plan.task != "pretrain":
        variable("classes", tuple(summary["classes"]), "read from the data")
    for key in ("steps", "batch_size", "workers", "warm_up", "validate_every", "learning_rate"):
        if any(decision.key == key for decision in plan.decisions):
            variable(key, plan[key], plan.why(key))
    variable("seed", plan.seed, "of everything random")
    for decision in plan.decisions:
        if decision.key not in (
            "steps",
            "batch_size",
            "workers",
            "warm_up",
            "validate_every",
            "learning_rate",
        ):
            lines.append(f"# {decision.key}: {shown(decision.value)} ({decision.why})")
    lines += [
        "",
        "# What reads them",
        *(PRETRAIN_READS if plan.task == "pretrain" else fine_tuning_reads(plan, cfg)),
    ]
    return "\n".join(lines) + "\n"


PRETRAIN_READS = (
    "train_dataloader = dict(batch_size=batch_size, num_workers=workers, persistent_workers=workers > 0,",
    "                        dataset=dict(data_root=data_root))",
    "train_cfg = dict(max_iters=steps)",
    "randomness = dict(seed=seed)",
)


def evaluator_reads(cfg: Config, part: str) -> str:
    """The statement that scores a part by the annotations below ``data_root``; empty where they lie elsewhere."""
    file = cfg[f"{part}_dataloader"].dataset.ann_file
    whole = cfg[f"{part}_evaluator"].ann_file
    if Path(file).is_absolute() or Path(whole) != Path(cfg.data_root, file):
        return ""
    return f"{part}_evaluator = dict(ann_file=data_root.rstrip('/') + {'/' + Path(file).as_posix()!r})"


def fine_tuning_reads(plan: RunPlan, cfg: Config) -> list[str]:
    """Statements that put the variables of a fine-tuning's config into its dictionaries."""
    data = "data_root=data_root, metainfo=dict(classes=classes)"
    loading = "num_workers=workers, persistent_workers=workers > 0"
    lines = [
        f"train_dataloader = dict(batch_size=batch_size, {loading}, dataset=dict({data}))",
        f"val_dataloader = dict({loading}, dataset=dict({data}))",
        f"test_dataloader = dict({loading}, dataset=dict({data}))",
        "optim_wrapper = dict(optimizer=dict(lr=learning_rate))",
        "train_cfg = dict(max_iters=steps, val_interval=validate_every)",
        "default_hooks = dict(checkpoint=dict(interval=validate_every))",
        "randomness = dict(seed=seed)",
    ]
    warm_up = "dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=warm_up)"
    if plan.task == "detection":
        heads = ["bbox_head"] + (["mask_head"] if "mask_head" in cfg.model.roi_head else [])
        inner = ", ".join(f"{head}=dict(num_classes=len(classes))" for head in heads)
        lines.append(f"model = dict(roi_head=dict({inner}))")
        lines += [line for part in ("val", "test") if (line := evaluator_reads(cfg, part))]
        fall = (
            "dict(type='MultiStepLR', milestones=[round(steps * 8 / 12), round(steps * 11 / 12)], gamma=0.1, "
            "by_epoch=False, begin=0, end=steps)"
        )
    else:
        inner = "num_classes=len(classes)"
        lines.append(f"model = dict(decode_head=dict({inner}), auxiliary_head=dict({inner}))")
        fall = "dict(type='PolyLR', power=1.0, eta_min=0.0, by_epoch=False, begin=warm_up, end=max(steps, warm_up + 1))"
    return [*lines, f"param_scheduler = [{warm_up},", f"                   {fall}]"]

"""Train any config of this repository: MST pretraining, Mask R-CNN, UperNet, a probe."""

from __future__ import annotations

import argparse
from operator import methodcaller
from typing import TYPE_CHECKING

from mst_pretrain.runtime.errors import UserError, run_cli
from mst_pretrain.training.command_line import PACKAGES, add_arguments
from mst_pretrain.training.signals import handle_signals

if TYPE_CHECKING:
    from mmengine.config import Config
    from mmengine.runner import Runner


def main(argv: list[str] | None = None) -> int:
    """Parse, check everything, train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", help="config file")
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        metavar="PATH",
        help="continue from this checkpoint; without a path from the newest in the work directory",
    )
    parser.add_argument("--amp", action="store_true", help="automatic mixed precision")
    parser.add_argument("--auto-scale-lr", action="store_true", help="scale the learning rate with the batch")
    parser.add_argument(
        "--init-from",
        metavar="PATH",
        help="pretraining starts from this backbone, of any format that is read; heads are new. Learning rates were "
        "measured: configs/pretrain/mst_deit-s_from-dino.py",
    )
    parser.add_argument(
        "--init",
        metavar="ROW",
        help="fine-tuning starts from this row of the comparison: random, supervised, dino, moby, esvit, ibot, "
        "mst-100 or mst-300. Sets the backbone's weights and the work directory (work_dirs/CONFIG_ROW_seedSEED)",
    )
    parser.add_argument(
        "--logger",
        nargs="+",
        choices=PACKAGES,
        help="also log to these: offline unless they are set up (WANDB_API_KEY or WANDB_MODE, MLFLOW_TRACKING_URI), "
        "into the work directory",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="try all that the run needs, with two steps and a checkpoint in a folder that is thrown away, and say "
        "what was found and how long the run takes; the same as mst doctor CONFIG",
    )
    parser.add_argument("--report", metavar="FILE", help="JSON file for what --dry-run finds")
    add_arguments(parser)
    args = parser.parse_args(argv)
    if args.dry_run:
        from mst_toolkit.preflight import dry_run

        return min(dry_run(lambda: read(args), args.launcher, args.report), 1)
    if args.report:
        raise UserError("--report is the file of what --dry-run finds. Add --dry-run, or leave it out.")

    from mst_pretrain.runtime.work_dir import claim
    from mst_pretrain.training.launch import check_pretraining, on_first_rank, run

    cfg = read(args)
    if is_fine_tuning(cfg):
        fine_tune(cfg, args)
        return 0
    on_first_rank(lambda: check_pretraining(cfg))
    on_first_rank(lambda: claim(cfg.work_dir))
    run(cfg, methodcaller("train"))
    return 0


def read(args: argparse.Namespace) -> Config:
    """The config with the command line in it; ``args.cfg_options`` become what a run records."""
    from mst_pretrain.runtime.config import load_config, read_options
    from mst_pretrain.training.launch import prepare

    args.cfg_options = read_options(args.config, args.cfg_options, "tools/train.py")
    cfg = load_config(args.config, args.cfg_options)
    if not is_fine_tuning(cfg):
        if args.init:
            raise UserError(
                f"--init: {args.config} is not a fine-tuning config. Pretraining has --init-from."
            )
        prepare(cfg, args)
        return cfg
    from mst_pretrain.training.runner import MIXED
    from mst_transfer.comparison.rows import INIT_CFG, use_row

    if args.init:
        twice = [key for key in args.cfg_options if key.startswith(INIT_CFG)]
        if twice:
            raise UserError(
                f"--init {args.init} and --cfg-options {twice[0]} both name the weights. Give one."
            )
        use_row(cfg, args.init)
    mixed = cfg.get("optim_wrapper", {}).get("type") == MIXED  # then --amp changes nothing
    prepare(cfg, args)
    if args.amp and not mixed:
        args.cfg_options = {**args.cfg_options, "amp": True}
    return cfg


def is_fine_tuning(cfg: Config) -> bool:
    """Whether a config is one of mmdet or mmseg with our backbones."""
    return "mst_transfer" in cfg.get("custom_imports", {}).get("imports", [])


def fine_tune(cfg: Config, args: argparse.Namespace) -> None:
    """Check everything, train."""
    from mst_pretrain.runtime.work_dir import claim
    from mst_pretrain.training.launch import on_first_rank, run
    from mst_transfer.comparison.record import RunRecord
    from mst_transfer.data.coco_file import parsing_once
    from mst_transfer.evaluation.trivial import TrivialBaselines
    from mst_transfer.training.checks import check_training, import_data_sets

    def train(runner: Runner) -> None:
        runner.register_hook(RunRecord(args.config, args.cfg_options))
        runner.register_hook(TrivialBaselines())
        runner.train()

    with parsing_once():
        import_data_sets(cfg)  # in every process
        on_first_rank(lambda: check_training(cfg))
        on_first_rank(lambda: claim(cfg.work_dir))
        run(cfg, train)


if __name__ == "__main__":
    handle_signals()
    run_cli(main)

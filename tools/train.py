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


def main(argv: list[str] | None = None) -> None:
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
    add_arguments(parser)
    args = parser.parse_args(argv)

    from mst_pretrain.runtime.config import load_config, read_options
    from mst_pretrain.runtime.work_dir import claim
    from mst_pretrain.training.launch import check_pretraining, on_first_rank, prepare, run

    args.cfg_options = read_options(args.config, args.cfg_options, "tools/train.py")
    cfg = load_config(args.config, args.cfg_options)
    if "mst_transfer" in cfg.get("custom_imports", {}).get("imports", []):
        fine_tune(cfg, args)
        return
    if args.init:
        raise UserError(f"--init: {args.config} is not a fine-tuning config. Pretraining has --init-from.")
    prepare(cfg, args)
    on_first_rank(lambda: check_pretraining(cfg))
    on_first_rank(lambda: claim(cfg.work_dir))
    run(cfg, methodcaller("train"))


def fine_tune(cfg: Config, args: argparse.Namespace) -> None:
    """Put the row into the config, check everything, train."""
    from mst_pretrain.runtime.work_dir import claim
    from mst_pretrain.training.launch import on_first_rank, prepare, run
    from mst_pretrain.training.runner import MIXED
    from mst_transfer.comparison.record import RunRecord
    from mst_transfer.comparison.rows import INIT_CFG, use_row
    from mst_transfer.data.coco_file import parsing_once
    from mst_transfer.evaluation.trivial import TrivialBaselines
    from mst_transfer.training.checks import check_training, import_data_sets

    if args.init:
        twice = [key for key in args.cfg_options if key.startswith(INIT_CFG)]
        if twice:
            raise UserError(
                f"--init {args.init} and --cfg-options {twice[0]} both name the weights. Give one."
            )
        use_row(cfg, args.init)
    mixed = cfg.get("optim_wrapper", {}).get("type") == MIXED  # then --amp changes nothing
    prepare(cfg, args)
    options = {**args.cfg_options, **({"amp": True} if args.amp and not mixed else {})}

    def train(runner: Runner) -> None:
        runner.register_hook(RunRecord(args.config, options))
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

"""Train any config of this repository: MST pretraining, Mask R-CNN, UperNet, a probe."""

from __future__ import annotations

import argparse

from mst_pretrain.config import load_config
from mst_pretrain.errors import run_cli
from mst_pretrain.launch import add_arguments, check_pretraining, on_first_rank, prepare, run


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
        help="pretraining starts from this timm, DINO or MST backbone; heads are new. Lower the learning rate with "
        "--cfg-options default_hooks.schedule.base_lr=5e-5 (ours, not tuned)",
    )
    add_arguments(parser)
    args = parser.parse_args(argv)

    cfg = load_config(args.config, args.cfg_options)
    prepare(cfg, args)
    on_first_rank(lambda: check_pretraining(cfg))
    if "mst_transfer" in cfg.get("custom_imports", {}).get("imports", []):
        from mst_transfer.launch import check_training

        on_first_rank(lambda: check_training(cfg))
    run(cfg, lambda runner: runner.train())


if __name__ == "__main__":
    run_cli(main)

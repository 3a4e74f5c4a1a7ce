"""Test a checkpoint: the config's evaluator decides whether mAP or mIoU is printed."""

from __future__ import annotations

import argparse
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import LoggerHook

from mst_pretrain.config import load_config
from mst_pretrain.errors import UserError, run_cli
from mst_pretrain.launch import add_arguments, on_first_rank, prepare, run, write_metrics


def main(argv: list[str] | None = None) -> None:
    """Parse, check everything, test, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", help="config file")
    parser.add_argument("checkpoint", help="checkpoint of a training with this config")
    add_arguments(parser)
    args = parser.parse_args(argv)

    cfg = load_config(args.config, args.cfg_options)
    prepare(cfg, args)
    if cfg.get("test_dataloader") is None:
        raise UserError(
            f"{args.config} has no test_dataloader. For a pretraining checkpoint use tools/eval_knn.py."
        )
    cfg.load_from, cfg.resume = args.checkpoint, False

    from mst_transfer.comparison.record import ResultRecord
    from mst_transfer.launch import check_test

    on_first_rank(lambda: check_test(cfg))

    def test(runner: Any) -> None:
        batches = len(runner.test_loop.dataloader)
        for hook in runner.hooks:
            if isinstance(hook, LoggerHook):  # a few slow images are a long time without a word
                hook.interval = max(1, min(hook.interval, batches // 20))
        runner.register_hook(ResultRecord(args.config, args.checkpoint, args.cfg_options))
        metrics = runner.test()
        if is_main_process():
            write_metrics(metrics, cfg.work_dir)

    run(cfg, test)


if __name__ == "__main__":
    run_cli(main)

"""Test a checkpoint: the config's evaluator decides whether mAP or mIoU is printed, with tables per class."""

from __future__ import annotations

import argparse
from typing import Any

from mst_pretrain.runtime.errors import UserError, run_cli
from mst_pretrain.training.command_line import add_arguments


def main(argv: list[str] | None = None) -> None:
    """Parse, check everything, test, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", help="config file")
    parser.add_argument("checkpoint", help="checkpoint of a training with this config")
    parser.add_argument(
        "--out",
        metavar="DIR",
        help="a new or empty folder for official result files: COCO results JSON, or label-id PNGs for Cityscapes' "
        "evaluation",
    )
    parser.add_argument("--tta", action="store_true", help="several sizes, each also mirrored, merged")
    parser.add_argument(
        "--tta-scales",
        type=float,
        nargs="+",
        metavar="FACTOR",
        help="of the test size (default: the config's tta_pipeline; else mmdet's 0.5 1 1.5, mmseg's 0.5 to 1.75)",
    )
    parser.add_argument(
        "--coco-library",
        choices=("faster-coco-eval", "pycocotools"),
        help="which computes AP (default: the config's, faster-coco-eval)",
    )
    add_arguments(parser)
    args = parser.parse_args(argv)

    from mmengine.dist import is_main_process
    from mmengine.hooks import LoggerHook

    from mst_pretrain.runtime.config import load_config, read_options
    from mst_pretrain.runtime.work_dir import writable_folder
    from mst_pretrain.training.launch import on_first_rank, prepare, run

    tta = args.tta or args.tta_scales is not None
    tool = "tools/test.py --tta" if tta else "tools/test.py"
    args.cfg_options = read_options(args.config, args.cfg_options, tool)
    cfg = load_config(args.config, args.cfg_options)
    cfg.loggers = []  # a test has its own files
    prepare(cfg, args)
    on_first_rank(lambda: writable_folder(cfg.work_dir, "--work-dir"))
    if cfg.get("test_dataloader") is None:
        raise UserError(
            f"{args.config} has no test_dataloader. For a pretraining checkpoint use tools/eval_knn.py."
        )
    cfg.load_from, cfg.resume, cfg.run_folder = args.checkpoint, False, False

    from mst_transfer.comparison.record import ResultRecord
    from mst_transfer.data.coco_file import parsing_once
    from mst_transfer.evaluation.output import fresh_folder
    from mst_transfer.evaluation.report import write_metrics, write_report
    from mst_transfer.evaluation.settings import use_our_metrics
    from mst_transfer.evaluation.speed import SpeedHook, speed_line
    from mst_transfer.evaluation.trivial import TrivialBaselines, baseline_metrics
    from mst_transfer.evaluation.tta import TTAHook, use_tta
    from mst_transfer.training.checks import check_test, import_data_sets

    use_our_metrics(cfg, args.coco_library, args.out)
    speed = SpeedHook()

    def test(runner: Any) -> None:
        batches = len(runner.test_loop.dataloader)
        for hook in runner.hooks:
            if isinstance(hook, LoggerHook):  # a few slow images are a long time without a word
                hook.interval = max(1, min(hook.interval, batches // 20))
        if tta_model is not None:
            runner.register_hook(TTAHook(tta_model), "VERY_LOW")
        runner.register_hook(TrivialBaselines())
        runner.register_hook(speed, "LOWEST")  # outside of everything else that is put around the model
        options = {**args.cfg_options, **({"tta_scales": args.tta_scales} if args.tta_scales else {})}
        runner.register_hook(ResultRecord(args.config, args.checkpoint, options, tta))
        metrics = runner.test()
        if is_main_process():
            settings = {"config": args.config, "checkpoint": args.checkpoint, "tta": tta}
            settings["tta_scales"] = args.tta_scales
            files = write_report(cfg.work_dir, runner.test_loop.evaluator.metrics, settings, speed.summary())
            print(speed_line(speed.summary()), flush=True)
            print(f"written: {', '.join(map(str, [*files, *([args.out] if args.out else [])]))}", flush=True)
            write_metrics(metrics, cfg.work_dir, baseline_metrics(runner.test_evaluator.metrics))

    with parsing_once():
        import_data_sets(cfg)  # in every process
        on_first_rank(lambda: check_test(cfg))
        if args.out is not None:
            on_first_rank(lambda: fresh_folder(args.out))
        tta_model = use_tta(cfg, args.tta_scales) if tta else None
        run(cfg, test)


if __name__ == "__main__":
    run_cli(main)

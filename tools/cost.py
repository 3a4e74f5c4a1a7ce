"""What a pretraining run will cost, from a few of its steps: hours, memory, workers, the largest batch.

    python tools/cost.py CONFIG --gpus 8 [--images N] [--json] [--cfg-options KEY=VALUE ...]

The steps run on the GPU at hand, or the CPU where there is none. Nothing is written. What the estimate assumes stands
below it: one process is measured, and several are taken to be as fast each.
"""

from __future__ import annotations

import argparse
import json

from mst_pretrain.runtime.argument_types import positive
from mst_pretrain.runtime.errors import run_cli
from mst_pretrain.runtime.options import ConfigOptions


def main(argv: list[str] | None = None) -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help="config file of a pretraining")
    parser.add_argument("--gpus", type=positive, default=1, help="of the run (default 1)")
    parser.add_argument("--steps", type=positive, default=5, help="to measure, after two others (default 5)")
    parser.add_argument(
        "--images",
        type=positive,
        help="of the data set; crops are then noise, the data is not read, and the loader is not measured",
    )
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of text")
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=ConfigOptions,
        default={},
        metavar="KEY=VALUE",
        help="override keys of the config, as tools/train.py does",
    )
    args = parser.parse_args(argv)

    from mmengine.logging import MMLogger

    from mst_pretrain.runtime.config import load_config, read_options
    from mst_pretrain.training.cost import as_json, cost_of, report

    MMLogger.get_instance("mmengine", log_level="WARNING")
    options = read_options(args.config, args.cfg_options, "tools/train.py")
    cost = cost_of(load_config(args.config, options), args.gpus, args.steps, args.images)
    settings = {"config": args.config, "cfg_options": options, "steps": args.steps}
    print(json.dumps(as_json(cost, **settings)) if args.json else report(cost))


if __name__ == "__main__":
    run_cli(main)

"""The comparison of initialisations: collect what was tested into one table, and run what is missing with --run."""

from __future__ import annotations

import argparse
from pathlib import Path

from mst_pretrain.runtime.errors import UserError, run_cli
from mst_pretrain.runtime.options import ConfigOptions

WORK_DIRS = "work_dirs"


def main(argv: list[str] | None = None) -> None:
    """Parse, run if asked to, collect, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="*", help=f"where to look for results (default: {WORK_DIRS})")
    parser.add_argument("--configs", nargs="+", metavar="CONFIG", help="with --run: what to train")
    parser.add_argument("--rows", nargs="+", metavar="ROW", help="with --run: see --init of train.py")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], metavar="SEED", help="with --run")
    parser.add_argument("--out", type=Path, metavar="DIR", help="for comparison.md and comparison.json")
    parser.add_argument("--run", action="store_true", help="first train and test what has no result yet")
    parser.add_argument("--dry-run", action="store_true", help="only print the commands of --run")
    parser.add_argument("--gpus", type=int, default=1, help="with --run: processes per training")
    parser.add_argument("--amp", action="store_true", help="with --run: automatic mixed precision")
    parser.add_argument("--auto-scale-lr", action="store_true", help="with --run: scale the learning rate")
    options_help = "with --run: of every training and test"
    parser.add_argument("--cfg-options", nargs="+", metavar="KEY=VALUE", default=[], help=options_help)
    args = parser.parse_args(argv)

    from mst_transfer.comparison import table

    if args.run or args.dry_run:
        run_missing(args)
    folders = args.folders or ([WORK_DIRS] if Path(WORK_DIRS).is_dir() else [])
    records, left_out = table.collect(folders)
    tables = table.build(records)
    print(table.markdown(tables, left_out))
    if args.out:
        table.write(tables, left_out, args.out)
        print(f"written: {args.out / 'comparison.md'}, {args.out / 'comparison.json'}")


def run_missing(args: argparse.Namespace) -> None:
    """Every config from every row with every seed."""
    from mst_pretrain.runtime.config import load_config, read_options
    from mst_transfer.comparison.rows import find
    from mst_transfer.comparison.runs import Job, run

    if not args.configs or not args.rows:
        raise UserError("--run needs --configs and --rows: what it starts may take days. Name them.")
    parsed = argparse.ArgumentParser()
    parsed.add_argument("--cfg-options", nargs="+", action=ConfigOptions, default={})
    texts = parsed.parse_args(["--cfg-options", *args.cfg_options] if args.cfg_options else []).cfg_options
    options = {config: read_options(config, texts) for config in args.configs}
    switches = [name for name in ("--amp", "--auto-scale-lr") if getattr(args, name[2:].replace("-", "_"))]
    for config in args.configs:
        for row in args.rows:
            find(row, load_config(config, options[config]))
    jobs = [
        Job(config, row, seed, tuple(args.cfg_options), options[config], tuple(switches), args.gpus)
        for config in args.configs
        for seed in args.seeds
        for row in args.rows
    ]
    run(jobs, args.dry_run)


if __name__ == "__main__":
    run_cli(main)

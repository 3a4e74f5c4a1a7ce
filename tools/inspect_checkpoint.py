"""Show what a checkpoint holds: format, architecture, epoch, sizes, health, metadata.

    python tools/inspect_checkpoint.py FILE [--json]

FILE is a checkpoint of this repository or of any project that tools/convert_checkpoint.py reads. The exit code is 1
when a weight is missing, of another shape, without a place in the architecture, not finite, or zero throughout.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from mst_pretrain.runtime.errors import run_cli


def main(argv: list[str] | None = None) -> int:
    """Print the report, or one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, help="checkpoint, or Hugging Face folder")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
    args = parser.parse_args(argv)

    from mst_pretrain.checkpoints.inspection import inspect_checkpoint, is_healthy, report

    found = inspect_checkpoint(args.file)
    print(json.dumps(found, allow_nan=False) if args.json else report(found))
    return 0 if is_healthy(found) else 1


if __name__ == "__main__":
    run_cli(main)

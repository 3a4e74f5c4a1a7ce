"""Judge a pretrained checkpoint by the criterion that was set before it was made, on seeds that chose nothing.

    python -m examples.quickstart.judge --checkpoint FILE --seeds 11 12 13 14 15

Each seed draws its own labelled and validation scenes and its own random start. The criterion: with 20 and with 320
labelled scenes the checkpoint is at least 6 points of mIoU above the random start, and above raw pixels and the
position prior, in every seed. The table is printed and written as JSON, whatever it shows; a table that is there is
never written again, because seeds that judge may be looked at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mst_pretrain.runtime.atomic import file_sha256, write_json
from mst_pretrain.runtime.errors import UserError, run_cli
from mst_pretrain.runtime.progress import Progress

from .arms import RANDOM, SHIPPED, VAL, arms_of, draw_for_readout, measure
from .readouts import LABELLED, TRIVIAL
from .ridge import RIDGE, WEAK_RIDGE

MARGIN = 6.0  # points of mIoU above the random start
JUDGED = (20, 320)  # numbers of labelled scenes


def failures(seeds: dict[str, Any]) -> list[str]:
    """Where the criterion is not met, in words; none where it is.

    Args:
        seeds: By seed, ``scores``: mIoU in per cent by arm and number of labelled scenes.

    Raises:
        ValueError: ``seeds`` is empty.
    """
    if not seeds:
        raise ValueError("no seed was judged")
    found = []
    for seed, measured in seeds.items():
        scores = measured["scores"]
        for count in map(str, JUDGED):
            shipped = scores[SHIPPED][count]
            bars = {RANDOM: scores[RANDOM][count] + MARGIN, **{arm: scores[arm][count] for arm in TRIVIAL}}
            for arm, bar in bars.items():
                enough = shipped >= bar if arm == RANDOM else shipped > bar
                if not enough:
                    margin = f" and {MARGIN:g} points" if arm == RANDOM else ""
                    found.append(
                        f"seed {seed}, {count} labelled scenes: {shipped:.2f} against {scores[arm][count]:.2f} of the "
                        f"{arm}{margin}"
                    )
    return found


def judge(checkpoint: Path, seeds: Sequence[int], device: str) -> dict[str, Any]:
    """Measure a checkpoint with every seed.

    Returns:
        What is written: ``checkpoint``, ``sha256``, ``criterion``, ``seeds``, ``failures``, ``met``.
    """
    table: dict[str, Any] = {}
    for seed in seeds:
        labelled, val = draw_for_readout(seed)
        arms = arms_of(seed, None, checkpoint, device)
        progress = Progress(f"seed {seed}, scenes read out", len(arms) * (sum(LABELLED) + len(val)))
        measured = measure(arms, labelled, val, device=device, done=progress.step, weak=True)
        table[str(seed)] = {
            "scores": measured.scores(),
            "gains over the random start": measured.gains()[SHIPPED],
            "scores with the weak ridge": measured.scores(weak=True),
        }
        print(markdown({str(seed): table[str(seed)]}, title=len(table) == 1), flush=True)
    missed = failures(table)
    return {
        "checkpoint": checkpoint.name,
        "sha256": file_sha256(checkpoint),
        "labelled scenes": list(LABELLED),
        "ridge": RIDGE,
        "weak ridge": WEAK_RIDGE,
        "validation scenes": VAL,
        "criterion": f"{MARGIN:g} points above the random start and above both trivial arms with "
        f"{JUDGED[0]} and {JUDGED[1]} labelled scenes, in every seed",
        "seeds": table,
        "failures": missed,
        "met": not missed,
    }


def markdown(seeds: dict[str, Any], title: bool = True) -> str:
    """Judged seeds as a Markdown table: one row for each seed and number of labelled scenes, mIoU in per cent."""
    arms = list(next(iter(seeds.values()))["scores"])
    lines = []
    if title:
        lines.append(f"| seed | labelled scenes | {' | '.join(arms)} | gain over the random start (95 %) |")
        lines.append("|---" * (len(arms) + 3) + "|")
    for seed, measured in seeds.items():
        for count, gain in measured["gains over the random start"].items():
            cells = " | ".join(f"{measured['scores'][arm][count]:.1f}" for arm in arms)
            interval = f"{gain['value']:+.1f} ({gain['low']:+.1f} to {gain['high']:+.1f})"
            lines.append(f"| {seed} | {count} | {cells} | {interval} |")
    return "\n".join(lines)


def markdown_of_weak(seeds: dict[str, Any]) -> str:
    """The mean over the seeds with the weak ridge: a row for each number of labelled scenes, mIoU in per cent."""
    key = "scores with the weak ridge"
    arms = list(next(iter(seeds.values()))[key])
    lines = [f"| labelled scenes | {' | '.join(arms)} |", "|---" * (len(arms) + 1) + "|"]
    for count in next(iter(seeds.values()))[key][arms[0]]:
        means = [sum(found[key][arm][count] for found in seeds.values()) / len(seeds) for arm in arms]
        lines.append(f"| {count} | {' | '.join(f'{mean:.1f}' for mean in means)} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, judge, print, write; 0 where the criterion is met, else 1."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--checkpoint", type=Path, required=True, help="any backbone that the toolkit reads")
    parser.add_argument("--seeds", type=int, nargs="+", required=True)
    parser.add_argument("--out", type=Path, default=Path("judged.json"), help="the table as JSON")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args(argv)
    if args.out.exists():
        raise UserError(
            f"{args.out} is there already: seeds judge once. Read it, or name another file with --out."
        )
    if not args.checkpoint.is_file():
        raise UserError(f"--checkpoint {args.checkpoint} does not exist.")
    if len(set(args.seeds)) < len(args.seeds):
        raise UserError(f"--seeds {' '.join(map(str, args.seeds))}: name each seed once.")
    result = judge(args.checkpoint, args.seeds, args.device)
    write_json(result, args.out)
    print(f"\nwith a ridge of {WEAK_RIDGE} instead of {RIDGE}, mean of the seeds:")
    print(markdown_of_weak(result["seeds"]))
    print(f"\ncriterion ({result['criterion']}): {'met' if result['met'] else 'NOT met'}")
    print(*result["failures"], f"written to {args.out}", sep="\n", file=sys.stdout)
    return 0 if result["met"] else 1


if __name__ == "__main__":
    run_cli(main)

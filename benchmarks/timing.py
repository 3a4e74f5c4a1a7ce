"""How the benchmarks time: variants in turn within one process, medians, ratios round by round."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from mst_pretrain.runtime.environment import environment_info

Seconds = dict[str, list[float]]  # of each variant, round by round


def in_turn(
    variants: Mapping[str, Callable[[], object]], rounds: int, device: torch.device, repeat: int = 1
) -> Seconds:
    """Seconds of one call of each variant, ``rounds`` times, after one that is not counted.

    Args:
        variants: What to time, by name.
        rounds: At least 5 for a figure that is to be published.
        device: Is waited for before the clock is read.
        repeat: Calls between two looks at the clock.
    """
    seconds: Seconds = {name: [] for name in variants}
    for turn in range(rounds + 1):
        for name, call in variants.items():
            wait(device)
            began = time.perf_counter()
            for _ in range(repeat):
                call()
            wait(device)
            if turn:
                seconds[name].append((time.perf_counter() - began) / repeat)
    return seconds


def wait(device: torch.device) -> None:
    """Until the device has done its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_of_process() -> float:
    """The largest resident memory of this process so far, in GiB; its parent's, of which getrusage tells, is left out.

    Linux alone tells it so.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 2**20


def ratio(seconds: Seconds, name: str, peer: str) -> float:
    """The median over rounds of one variant's time divided by another's."""
    return statistics.median(a / b for a, b in zip(seconds[name], seconds[peer], strict=True))


def table(seconds: Seconds, peer: str, images: int | None = None) -> list[dict[str, Any]]:
    """Rows with the median seconds of every variant, its ratio to the peer, and images per second."""
    rows = []
    for name, values in seconds.items():
        median = statistics.median(values)
        row: dict[str, Any] = {"variant": name, "seconds": round(median, 4)}
        row["to peer"] = round(ratio(seconds, name, peer), 3)
        rows.append(row | ({"images/s": round(images / median, 1)} if images else {}))
    return rows


def publish(name: str, rows: Sequence[Mapping[str, Any]], device: torch.device, **settings: Any) -> None:
    """Print a table, and one JSON line with device, versions and settings."""
    columns = list(rows[0])
    cells = [columns, *([str(row.get(column, "")) for column in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    result = {"benchmark": name, **settings, "rows": [dict(row) for row in rows]}
    print(json.dumps({**result, **environment_info(device)}))

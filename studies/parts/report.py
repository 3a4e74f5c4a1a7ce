"""From read-outs of every arm and seed to a table and a plot: means, spread, paired bootstrap."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import matplotlib
import torch
from torch import Tensor

from mst_pretrain.runtime.atomic import replacing, write_json, write_text
from mst_transfer.comparison.table import over_seeds, with_spread

from .dense import mean_iou

matplotlib.use("Agg")
import matplotlib.pyplot as plt

RESAMPLES = 2000
REFERENCES = ("DINO", "guided 25 %")  # arms that the others are compared with
TITLES = {
    "knn": "k-NN, per cent",
    "linear": "linear, per cent",
    "dense": "dense probe, mIoU on CamVid val",
}
PIXELS, PRIOR = "raw pixels", "position prior"
BASELINES = ("random weights", PIXELS, PRIOR)
Scores = dict[str, list[dict[str, float]]]  # by arm, of each seed


@dataclass
class ReadOut:
    """What one set of features is worth.

    Attributes:
        knn: [M] bool, per val photo whether k-NN is right.
        linear: [M] bool, the same of the linear classifier.
        confusion: [F, C, C] int64, per val frame of the dense probe.
    """

    knn: Tensor | None
    linear: Tensor | None
    confusion: Tensor

    def scores(self) -> dict[str, float]:
        """In per cent."""
        right = {name: value for name in ("knn", "linear") if (value := getattr(self, name)) is not None}
        shares = {name: 100 * value.double().mean().item() for name, value in right.items()}
        return {**shares, "dense": mean_iou(self.confusion.sum(0)).item()}


def bootstrap_difference(one: Tensor, other: Tensor, seed: int = 0) -> tuple[float, float, float]:
    """Paired bootstrap over val images of the difference of two arms, each the mean over its seeds.

    Args:
        one: [S, M] bool (accuracy) or [S, F, C, C] int64 (mIoU).
        other: The same images in the same order; its number of seeds may differ.
        seed: Of the resampling.

    Returns:
        (difference, low, high): one minus other in per cent points, and the 95 % interval.
    """
    images = one.shape[1]
    generator = torch.Generator().manual_seed(seed)

    def score(arm: Tensor, weights: Tensor) -> Tensor:
        """[R, images] counts to [R] scores."""
        if arm.ndim == 2:
            return 100 * (weights @ arm.double().T / images).mean(1)
        return mean_iou(torch.einsum("ri,sicd->rscd", weights, arm.double())).mean(1)

    rows = torch.randint(images, (RESAMPLES, images), generator=generator)
    counts = torch.zeros(RESAMPLES, images, dtype=torch.double).scatter_add_(
        1, rows, torch.ones(RESAMPLES, images, dtype=torch.double)
    )
    once = torch.ones(1, images, dtype=torch.double)
    difference = (score(one, once) - score(other, once)).item()
    low, high = (score(one, counts) - score(other, counts)).quantile(
        torch.tensor([0.025, 0.975], dtype=torch.double)
    )
    return difference, low.item(), high.item()


def write_report(
    out: Path,
    arms: dict[str, dict[int, ReadOut]],
    hidden: dict[str, float],
    realised: dict[str, float | None],
    length: str,
    command: str,
) -> str:
    """``report.md``, ``report.json`` and ``report.png`` in ``out``; returns the Markdown.

    Args:
        out: Folder.
        arms: Read-outs by arm and seed; arms without any are left out. Baselines have the names below.
        hidden: Tokens an arm should hide per view.
        realised: Tokens it did hide.
        length: How long and on what each run trained.
        command: What was typed.
    """
    arms = {name: runs for name, runs in arms.items() if runs}
    scores = {name: [run.scores() for run in runs.values()] for name, runs in arms.items()}
    lines = [
        "# Mask study",
        "",
        f"`{command}`",
        "",
        f"Each run: {length}. Mean and standard deviation over seeds. {val_images(arms)}",
        "",
    ]
    lines += score_table(arms, scores, hidden, realised)
    short = too_short(scores)
    lines += [
        f"**{name} ends below raw pixels in k-NN: the run was too short to compare it.**" for name in short
    ]
    comparable = [name for name in arms if name in hidden and name not in short]
    differences = {reference: compare(arms, comparable, reference) for reference in REFERENCES}
    for reference, rows in differences.items():
        lines += difference_table(reference, rows)
    text = "\n".join(lines) + "\n"
    write_text(text, out / "report.md")
    whole = {
        "command": command,
        "length": length,
        "scores": {name: dict(zip(arms[name], rows, strict=True)) for name, rows in scores.items()},
        "hidden_tokens": realised,
        "differences": differences,
        "below_raw_pixels": short,
    }
    write_json(whole, out / "report.json")
    plot(scores, out / "report.png")
    return text


def score_table(
    arms: dict[str, dict[int, ReadOut]],
    scores: Scores,
    hidden: dict[str, float],
    realised: dict[str, float | None],
) -> list[str]:
    """A row per arm: its seeds, the tokens it hid, its three read-outs, and the trivial baselines of these."""
    trivial = [scores.get(name, []) for name in (PIXELS, PIXELS, PRIOR)]
    baseline = " / ".join(
        with_spread(over_seeds(values_of(rows, key))) or "not measured"
        for rows, key in zip(trivial, TITLES, strict=True)
    )
    lines = [
        "| arm | seeds | hidden tokens per view | k-NN (k = 20) | linear | dense probe, mIoU | trivial baselines "
        f"({PIXELS} / {PIXELS} / {PRIOR}) |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, rows in scores.items():
        cells = [with_spread(over_seeds(values_of(rows, key))) for key in TITLES]
        count = "" if realised.get(name) is None else f"{realised[name]:.1f} (expected {hidden[name]:.1f})"
        count = "0" if hidden.get(name) == 0 else count
        lines.append(
            f"| {name} | {', '.join(map(str, arms[name]))} | {count} | {' | '.join(cells)} | {baseline} |"
        )
    return lines


def difference_table(reference: str, rows: dict[str, dict[str, tuple[float, float, float]]]) -> list[str]:
    """A row per arm: its differences from the reference with their intervals; nothing where there is no row."""
    if not rows:
        return []
    lines = [
        "",
        f"Arm minus {reference}, 95 % intervals of a paired bootstrap over val images, which say",
        "nothing of how another seed would have ended:",
        "",
        "| arm | k-NN | linear | dense probe |",
        "|---|---|---|---|",
    ]
    for name, row in rows.items():
        cells = [f"{d:+.2f} [{low:+.2f}, {high:+.2f}]" for d, low, high in row.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def val_images(arms: dict[str, dict[int, ReadOut]]) -> str:
    """How many images the read-outs are of."""
    runs = [run for by_seed in arms.values() for run in by_seed.values()]
    photos = {len(run.knn) for run in runs if run.knn is not None}
    frames = {len(run.confusion) for run in runs}
    return (
        f"k-NN and linear: {' or '.join(f'{n:,}' for n in sorted(photos))} val photos; dense probe: "
        f"{' or '.join(map(str, sorted(frames)))} val frames."
    )


def too_short(scores: Scores) -> list[str]:
    """Arms whose mean k-NN accuracy is below raw pixels'."""
    means = {name: over_seeds(values_of(rows, "knn"))["mean"] for name, rows in scores.items()}
    pixels = means.get("raw pixels")
    arms = {name: mean for name, mean in means.items() if name not in BASELINES and mean is not None}
    return [name for name, mean in arms.items() if pixels is not None and mean < pixels]


def values_of(rows: list[dict[str, float]], key: str) -> list[float]:
    """One score of the seeds that have it."""
    return [row[key] for row in rows if key in row]


def compare(
    arms: dict[str, dict[int, ReadOut]], names: list[str], reference: str
) -> dict[str, dict[str, tuple[float, float, float]]]:
    """Each arm minus the reference on every read-out, over the seeds both have."""
    differences: dict[str, dict[str, tuple[float, float, float]]] = {}
    for name in names:
        seeds = sorted(set(arms[name]) & set(arms.get(reference, {})))
        if name == reference or reference not in names or not seeds:
            continue
        row = {}
        for key in ("knn", "linear", "confusion"):
            one, other = (
                torch.stack([getattr(arms[arm][seed], key) for seed in seeds]) for arm in (name, reference)
            )
            row[key] = bootstrap_difference(one, other)
        differences[name] = row
    return differences


def plot(rows: Scores, path: Path) -> None:
    """One panel per read-out, one row per arm, one dot per seed."""
    names = list(rows)
    figure, axes = plt.subplots(1, 3, figsize=(13, 0.45 * len(names) + 1.5), sharey=True)
    for axis, readout in zip(axes, TITLES, strict=True):
        for place, name in enumerate(names):
            values = values_of(rows[name], readout)
            axis.plot(values, [place] * len(values), "o", alpha=0.7)
            if values:
                axis.plot([sum(values) / len(values)], [place], "k|", markersize=14)
        axis.set_title(TITLES[readout])
        axis.grid(axis="x", alpha=0.3)
    axes[0].set_yticks(range(len(names)), names)
    axes[0].invert_yaxis()
    figure.tight_layout()
    with replacing(path) as part:
        figure.savefig(part, dpi=110, format="png")
    plt.close(figure)

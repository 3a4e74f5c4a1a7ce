"""The lines that a training prints, as text: nothing here knows a runner."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

NAMES = {
    "loss_ce": "match",
    "loss_rec": "restore",
    "loss_bbox": "box",
}  # of loss terms; others lose their "loss_"
ORDER = ("match", "restore", "cls", "box", "rpn", "mask", "decode", "aux")
COCO = re.compile(r"^(?:coco/)?(bbox|segm)_mAP(?:_(\w+))?$")
PARTS = {"bbox": "box", "segm": "mask"}
SHOWN = ("mIoU", "mAcc", "aAcc", "AP", "AP50")  # of an evaluation; everything is in metrics.jsonl


def train_line(stage: str, values: Mapping[str, Any], health: str = "") -> str:
    """One line of a training.

    Args:
        stage: ``pretrain``, ``detection`` or ``segmentation``.
        values: Of ``metrics.jsonl``: step, total, loss and its terms, lr, images_per_second, memory_gb (left out of the
            line where it is None), eta_seconds (None: not known yet).
        health: Words on how the run is.
    """
    step, total = values["step"], values["total"]
    steps = f"{f'{step:>6,}/{total:,}':<14}"
    parts = [f"{stage:<9} step {steps}", f"{100 * step / max(total, 1):.1f} %", loss_part(values)]
    parts += [f"lr {values['lr']:.1e}"] if values.get("lr") is not None else []
    parts += [rate(values["images_per_second"])] if values.get("images_per_second") else []
    parts += [f"mem {values['memory_gb']:.1f} GB"] if values.get("memory_gb") is not None else []
    parts += [f"ETA {duration(values['eta_seconds'])}"] if values.get("eta_seconds") is not None else []
    return "  ".join([*parts, *([health] if health else [])])


def loss_part(values: Mapping[str, Any]) -> str:
    """``loss 5.43 (match 4.97, restore 0.46)``."""
    terms = loss_terms(values)
    total = values.get("loss")
    shown = "not finite" if total is None else f"{total:.2f}"
    if len(terms) < 2:
        return f"loss {shown}"
    return f"loss {shown} ({', '.join(f'{name} {value:.2f}' for name, value in terms.items())})"


def loss_terms(values: Mapping[str, Any]) -> dict[str, float]:
    """The terms of a loss by the names that a line shows; those of one name are added.

    Args:
        values: By the names of MST, mmdet and mmseg: ``loss_ce``, ``loss_rpn_cls``, ``s0.loss_bbox``, ``aux.loss_ce``.
    """
    found: dict[str, float] = {}
    for key, value in values.items():
        if "loss" in key and key != "loss" and not key.startswith("loss_scale") and value is not None:
            name = _term(key)
            found[name] = found.get(name, 0.0) + value
    known = [name for name in ORDER if name in found]
    return {name: found[name] for name in [*known, *(name for name in found if name not in known)]}


def _term(key: str) -> str:
    part, _, loss = key.rpartition(".")
    for name in ("decode", "aux"):
        if part.startswith(name):
            return name
    if loss.startswith("loss_rpn"):
        return "rpn"
    return NAMES.get(loss, loss.removeprefix("loss_"))


def rate(images_per_second: float) -> str:
    """``342 img/s`` or ``9.6 img/s``."""
    digits = 0 if round(images_per_second, 1) >= 100 else 1 if images_per_second >= 0.1 else 3
    return f"{images_per_second:,.{digits}f} img/s"


def duration(seconds: float) -> str:
    """``45 s``, ``12 min``, ``1 h 27 min`` or ``3 d 4 h``."""
    if seconds < 59.5:
        return f"{max(round(seconds), 0)} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(round(seconds / 3600), 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def scores_of(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The scores of a validation in per cent, by the names that a line shows; one that does not exist is left out.

    Args:
        metrics: Of mmdet, fractions and -1 where there is no object of a size, or of mmseg, per cent. Where boxes and
            masks are scored, names begin with ``box`` and ``mask``.
    """
    found = {name: COCO.match(name) for name in metrics}
    kinds = {match[1] for match in found.values() if match}
    scores: dict[str, float] = {}
    for name, match in found.items():
        value = metrics[name]
        if not isinstance(value, int | float):
            continue
        if match is None:
            scores[name.rpartition("/")[2]] = float(value)
        elif value >= 0:
            ending = match[2] or ""
            short = f"AP{ending}" if ending.isdigit() else f"AP_{ending}" if ending else "AP"
            scores[f"{PARTS[match[1]]} {short}" if len(kinds) > 1 else short] = 100 * float(value)
    main_first = sorted(scores, key=lambda name: not name.startswith(("mask ", "mIoU")))
    return {name: scores[name] for name in main_first}


def eval_line(step: int, total: int, scores: Mapping[str, float], best: str, saved: str = "") -> str:
    """One line of a validation.

    Args:
        step: Finished iterations.
        total: Iterations of the whole run.
        scores: As :func:`scores_of` gives them.
        best: ``best`` or which one it is, e.g. ``best 12.4 at step 752``; empty: nothing is said of it.
        saved: The checkpoint that was written, as it is shown.
    """
    shown = [name for name in scores if name.rpartition(" ")[2] in SHOWN] or list(scores)
    parts = [f"{name} {scores[name]:.1f}" for name in shown] + ([f"({best})"] if best else [])
    return "  ".join([f"{'eval':>14} {step:>6,}/{total:,}", *parts]) + (f"   saved {saved}" if saved else "")


def data_warning(share: float, workers: int) -> str:
    """What to do about time spent waiting for images.

    Args:
        share: 0 to 1.
        workers: Processes that load images.
    """
    return (
        f"{100 * share:.0f} % of the time is spent waiting for images. Raise --workers (now {workers}), or copy the "
        "data to a local disk."
    )

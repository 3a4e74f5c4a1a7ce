"""What the frozen features of a backbone are worth on labelled images: k-NN, a linear layer, or a dense probe."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from .evaluating import METRICS
from .image_scores import FILE, LabelImages, save
from .intervals import RESAMPLES, Bootstrap

KINDS = ("knn", "linear", "segmentation")
USUAL = 20  # neighbours, where there are as many [code: DINO]
SHARE = 0.2  # held out of a folder without a validation split


def probe(
    kind: str,
    backbone: str | Path | None,
    data: Any,
    out: str | Path,
    *,
    seed: int = 0,
    options: list[str] | None = None,
) -> dict[str, Any]:
    """Probe a backbone and write ``metrics.json`` and ``per_image.npz`` into ``out``.

    Args:
        kind: ``knn`` or ``linear`` on folders with a folder per class, or ``segmentation`` on label maps.
        backbone: A checkpoint that the converter reads; None: random weights.
        data: A folder with ``train`` and ``val``, each with a folder per class, or one with a folder per class, of
            which a fifth is held out; for ``segmentation`` images with label maps in any layout.
        out: Receives the files; it must not lie inside ``data``.
        seed: Of random weights, of the split and of the linear layers.
        options: Further arguments of the tool.

    Returns:
        What ``metrics.json`` holds; all scores are per cent.

    Raises:
        UserError: The kind is unknown, or the backbone or the data cannot be used.
    """
    from mst_pretrain.runtime.atomic import write_json
    from mst_pretrain.runtime.errors import UserError
    from mst_pretrain.runtime.work_dir import writable_folder

    if kind not in KINDS:
        raise UserError(f"mst probe {kind}: the kinds are {', '.join(KINDS)}.")
    root = Path(data if isinstance(data, str | Path) else data.root)
    if not root.is_dir():
        raise UserError(f"{data} does not exist or is not a folder. Give a folder of labelled images.")
    if Path(out).resolve().is_relative_to(root.resolve()):
        raise UserError(f"--out {out} lies inside the data, {data}. Give a folder elsewhere.")
    writable_folder(out, "--out")
    start = time.monotonic()
    if kind == "segmentation":
        result = _segmentation(backbone, root, Path(out), seed, options or [])
    else:
        result = _classification(kind, backbone, root, Path(out), seed, options or [])
    result["seconds"] = round(time.monotonic() - start, 1)
    write_json(result, Path(out, METRICS))
    print(f"{probe_line(result)}\nwritten: {Path(out, METRICS)}, {Path(out, FILE)}", flush=True)
    return result


def probe_line(result: dict[str, Any]) -> str:
    """The main score with its interval and baseline, in %."""
    main = {key: "-" if value is None else value for key, value in result["main"].items()}
    numbers = {key: f"{value:.2f}" if isinstance(value, float) else value for key, value in main.items()}
    return (
        f"{numbers['name']} {numbers['value']} % (95 % interval {numbers['low']} .. {numbers['high']}, "
        f"percentiles of {RESAMPLES:,} resamples of the images), "
        f"{result['baseline']['name']} {numbers['baseline']} %, {result['images']:,} images"
    )


def _classification(
    kind: str, backbone: str | Path | None, root: Path, out: Path, seed: int, options: list[str]
) -> dict[str, Any]:
    """k-NN or linear accuracy by the tools' own functions, with the decision on every image."""
    with tempfile.TemporaryDirectory() as scratch:
        train, val = _train_and_val(root, Path(scratch), seed)
        arrays = Path(scratch, "decisions.npz")
        arguments = [str(train), str(val), "--save", str(arrays), "--seed", str(seed)]
        told = _run_tool(
            f"eval_{kind}", [*arguments, *_weights(backbone), *options], Path(scratch, "result.json")
        )
        with np.load(arrays) as decided:
            truth = decided["val_labels"]
            k = told.get("k") and (USUAL if USUAL in told["k"] else told["k"][0])
            key = f"predicted_{k}" if kind == "knn" else "predicted"
            predicted, names = decided[key], decided["val_names"]
            train_labels, classes = decided["train_labels"], decided["classes"]
    scores = LabelImages.of_decisions(names, classes, truth, predicted)
    save(out / FILE, scores, _digest(names, truth))
    bootstrap, trivial = Bootstrap(scores), int(np.bincount(train_labels).argmax())
    name = f"k-NN accuracy (k = {k})" if kind == "knn" else "linear accuracy"
    share = 100 * float((truth == trivial).mean())
    measured = {key: value for key, value in told.items() if key.startswith(("knn_", "linear"))}
    rows = [
        {
            "name": str(label),
            "images": int((truth == index).sum()),
            "objects": None,
            "Acc": bounds["value"],
            "low": bounds["low"],
            "high": bounds["high"],
            "baseline": 100.0 * (index == trivial) if (truth == index).any() else None,
        }
        for index, (label, bounds) in enumerate(zip(classes, bootstrap.classes(), strict=True))
    ]
    return {
        "task": "classification",
        "main": {"name": name, **bootstrap.main(), "baseline": share},
        "scores": measured,
        "classes": rows,
        "baseline": {"name": told["baseline"]["name"], "scores": dict.fromkeys(measured, share)},
        **_origin(told, len(names), _digest(names, truth)),
    }


def _segmentation(
    backbone: str | Path | None, root: Path, out: Path, seed: int, options: list[str]
) -> dict[str, Any]:
    """The dense probe; its linear layer is trained in a folder of its own and scored as a segmentor is."""
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch, "work")
        saved = Path(scratch, "matrices.npz")
        arguments = [str(root), "--seed", str(seed), "--work-dir", str(work), "--save", str(saved)]
        told = _run_tool(
            "eval_dense", [*arguments, *_weights(backbone), *options], Path(scratch, "result.json")
        )
        with np.load(saved) as arrays:
            scores = LabelImages.of_matrices(arrays["images"], arrays["classes"], arrays["matrices"])
            prior = arrays.get("baseline")
    digest = _digest(scores.images, scores.sums()[1])
    save(out / FILE, scores, digest)
    bootstrap, (_, true, _) = Bootstrap(scores), scores.sums()
    rows = [
        {
            "name": str(name),
            "images": int((true[:, index] > 0).sum()),
            "objects": None,
            "pixels": int(true[:, index].sum()),
            "IoU": bounds["value"],
            "low": bounds["low"],
            "high": bounds["high"],
            "baseline": None if prior is None or np.isnan(prior[index]) else float(prior[index]),
        }
        for index, (name, bounds) in enumerate(zip(scores.classes, bootstrap.classes(), strict=True))
    ]
    trivial = {key: value for key, value in told["baseline"].items() if key != "name"}
    return {
        "task": "segmentation",
        "main": {"name": "dense probe mIoU", **bootstrap.main(), "baseline": trivial.get("mIoU")},
        "scores": {name: told[name] for name in ("mIoU", "mAcc", "aAcc")},
        "classes": rows,
        "baseline": {"name": told["baseline"]["name"], "scores": trivial},
        **_origin(told, len(scores.images), digest),
    }


def _train_and_val(root: Path, scratch: Path, seed: int) -> tuple[Path, Path]:
    """The two folders of a data set; without them a seeded fifth of every class is held out, by links elsewhere.

    Raises:
        UserError: There are no folders of classes, or a class has one image alone.
    """
    for name in ("val", "valid", "validation", "test"):
        if (root / "train").is_dir() and (root / name).is_dir():
            return root / "train", root / name
    from mst_pretrain.data.files import list_images
    from mst_pretrain.runtime.errors import UserError

    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if len(folders) < 2:
        raise UserError(
            f"{root} has neither train and val nor a folder for each of several classes.\n"
            "Sort the labelled images into folders: DATA/CLASS/IMAGE"
        )
    for place, folder in enumerate(folders):
        images = list_images(folder)
        order = np.random.default_rng([seed, place]).permutation(len(images))
        held = max(1, round(SHARE * len(images)))
        if held == len(images):
            raise UserError(f"{folder} has one image, and one must be held out. Add images of this class.")
        for rank, index in enumerate(order):
            target = scratch / ("val" if rank < held else "train") / images[index].relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(images[index].resolve())
    return scratch / "train", scratch / "val"


def _weights(backbone: str | Path | None) -> list[str]:
    return [] if backbone is None else ["--checkpoint", str(backbone)]


def _run_tool(tool: str, arguments: list[str], out: Path) -> dict[str, Any]:
    """The result of one of the tools, run in a process of its own."""
    from mst_pretrain.runtime.errors import UserError

    from .resources import child_environment, resources

    root = resources()
    command = [sys.executable, str(root / f"tools/{tool}.py"), *arguments, "--out", str(out)]
    done = subprocess.run(command, env=child_environment(root), stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise UserError(f"the probe ended with exit code {done.returncode}; its message stands above.")
    return dict(json.loads(out.read_text(encoding="utf-8")))


def _digest(names: np.ndarray, truth: np.ndarray) -> str:
    """sha256 of image names and labels."""
    import hashlib

    text = "\n".join(map(str, names)).encode() + np.ascontiguousarray(truth, np.int64).tobytes()
    return hashlib.sha256(text).hexdigest()


def _origin(told: dict[str, Any], images: int, digest: str) -> dict[str, Any]:
    return {
        "checkpoint": told["checkpoint"],
        "sha256": told["sha256"],
        "model": told["model"],
        "images": images,
        "data": digest,
        "protocol": told["protocol"],
    }

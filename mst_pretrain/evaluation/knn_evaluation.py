"""What tools/eval_knn.py does once its arguments are read."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from typing import Any

from ..runtime.environment import environment_info
from ..runtime.errors import UserError
from .arguments import precision_of, trunk_of
from .features import extract_features
from .knn import accuracy
from .labelled import MAJORITY, majority_accuracy, names_of, open_train_val
from .protocols import NEIGHBOURS, TEMPERATURE
from .ranks import gather_rows, publish, rank, save_arrays, start
from .shared_knn import shared_knn


def neighbours(wanted: list[int] | None, images: int, train: str) -> list[int]:
    """The values of k: those given, or of DINO's list those that the training set allows, with a note on the others."""
    ks = sorted(set(wanted or NEIGHBOURS))
    fitting = [k for k in ks if k <= images]
    if wanted and fitting != ks:
        raise UserError(
            f"-k {ks[-1]} is above the {images} training images of {train}. Give smaller values of k."
        )
    if not fitting:
        raise UserError(
            f"{train} has {images} training images, fewer than the default {ks[0]} neighbours. Add -k 1."
        )
    if fitting != ks and rank() == 0:
        print(f"k = {ks[len(fitting) :]} left out: {train} has {images} training images", file=sys.stderr)
    return fitting


def evaluate_knn(args: argparse.Namespace) -> None:
    """Extract the features of both sets, vote, print one JSON line; ``args`` are those of the tool."""
    device = start()
    train, val = open_train_val(args.train, args.val)
    ks = neighbours(args.k, len(train.labels), args.train)
    trunk, origin = trunk_of(args)
    dtype = precision_of(args, device)
    options = (args.resize, args.crop, args.batch_size, args.workers, device)
    train_features = extract_features(
        trunk, train.source, *options, what="train features", precision=dtype, gather=False
    )
    val_features = extract_features(trunk, val.source, *options, what="val features", precision=dtype)
    known = (train_features.to(device), train.labels.to(device), val_features.to(device))
    whole = {k: classes.cpu() for k, classes in shared_knn(*known, ks, TEMPERATURE).items()}
    if args.save:
        train_features = gather_rows(train_features, len(train.labels))
    if args.save and rank() == 0:
        arrays: dict[str, Any] = {f"predicted_{k}": classes.numpy() for k, classes in whole.items()}
        arrays |= {"train_features": train_features.numpy(), "val_features": val_features.numpy()}
        arrays |= {"train_labels": train.labels.numpy(), "val_labels": val.labels.numpy()}
        arrays |= {"val_names": names_of(val), "classes": train.classes}
        save_arrays(arrays, args.save)
    publish(
        {
            "protocol": "knn",
            **asdict(origin),
            "train": args.train,
            "val": args.val,
            "resize": args.resize,
            "crop": args.crop,
            "dtype": dtype,
            "feature": "last1",
            "k": ks,
            "temperature": TEMPERATURE,
            "classes": len(train.classes),
            "train_images": len(train.labels),
            "val_images": len(val.labels),
            **{f"knn_{k}": round(accuracy(classes, val.labels), 3) for k, classes in whole.items()},
            "baseline": {"name": MAJORITY, "knn": round(majority_accuracy(train.labels, val.labels), 3)},
            **environment_info(),
        },
        args.out,
    )

"""What tools/eval_linear.py does once its arguments are read."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor

from ..method.backbones import Trunk
from ..runtime.environment import environment_info
from ..runtime.errors import UserError
from .arguments import precision_of, trunk_of
from .features import block_widths, feature_columns
from .heads import HeadBank
from .labelled import (
    MAJORITY,
    Labelled,
    hold_out,
    low_shot,
    majority_accuracy,
    names_of,
    open_train_val,
)
from .linear import LinearSettings, LinearTraining, extract
from .protocols import DINO_EPOCHS, DINO_RATE, SWEEP_EPOCHS, SWEEP_RATES
from .ranks import publish, rank, save_arrays, start


def settings_of(
    args: argparse.Namespace, trunk: Trunk, images: int, dtype: str = "float32"
) -> LinearSettings:
    """What the protocol and the command line make of the training."""
    dino = args.protocol == "dino"
    depth = len(block_widths(trunk))
    blocks = tuple(args.blocks or ((4,) if dino else (1, 4)))
    if max(blocks) > depth and args.blocks:
        raise UserError(f"--blocks {max(blocks)} is above the {depth} blocks of the model. Give fewer.")
    if args.avgpool and isinstance(trunk, SwinTransformer):
        raise UserError(
            "--avgpool is for a ViT: a Swin's features are means of tokens already. Leave it out."
        )
    columns = feature_columns(trunk, blocks, avgpool=args.avgpool or not dino)
    if args.avgpool:
        columns = {"last1+avgpool": columns["last1+avgpool"]}
    return LinearSettings(
        columns=columns,
        rates=args.lr or ([DINO_RATE] if dino else SWEEP_RATES),
        epochs=args.epochs or (DINO_EPOCHS if dino else SWEEP_EPOCHS),
        batch=min(args.train_batch_size, images),
        step_each_epoch=dino,
        augment=args.augment == "crop",
        seed=args.seed,
        resize=args.resize,
        crop=args.crop,
        forward_batch=args.batch_size,
        workers=args.workers,
        blocks=min(max(blocks), depth),
        avgpool=any("avgpool" in name for name in columns),
        dtype=dtype,
    )


def split(args: argparse.Namespace, train: Labelled) -> tuple[Tensor, Tensor]:
    """Training images used, and those held out of them (none for DINO's protocol)."""
    used = (
        low_shot(train.labels, args.low_shot, args.seed) if args.low_shot else torch.arange(len(train.labels))
    )
    if args.protocol == "dino":
        return used, used[:0]
    try:
        kept, held = hold_out(train.labels[used], args.hold_out, args.seed)
    except ValueError as error:
        raise UserError(
            f"{args.train}: class '{train.classes[error.args[1]]}' has one training image in use, and the sweep must "
            "hold one out. Add images of it, raise --low-shot, or use --protocol dino."
        ) from error
    return used[kept], used[held]


def choose(bank: HeadBank, rows: Tensor, labels: Tensor, rates: list[float]) -> tuple[int, dict[str, Any]]:
    """The head with most held-out images right (of equals the first), and all heads' accuracies."""
    correct = bank.correct(rows, labels)
    best = int((correct == correct.max()).int().argmax())
    shares = (100.0 * correct / len(labels)).tolist()
    heads = [
        {"features": choice, "lr": rates[number % len(rates)], "held_out_accuracy": round(shares[number], 3)}
        for number, (choice, _) in enumerate(bank.names)
    ]
    return best, {"chosen": heads[best], "heads": heads}


def evaluate_linear(args: argparse.Namespace) -> None:
    """Train the heads, choose, test, print one JSON line; ``args`` are those of the tool."""
    device = start()
    train, val = open_train_val(args.train, args.val)
    indices, held = split(args, train)
    trunk, origin = trunk_of(args)
    trunk = trunk.to(device)
    settings = settings_of(args, trunk, len(indices), precision_of(args, device))
    protocol = {
        "protocol": f"linear-{args.protocol}",
        **asdict(origin),
        "train": args.train,
        "val": args.val,
        **{key: value for key, value in asdict(settings).items() if key not in ("workers", "columns")},
        "features": list(settings.columns),
        "low_shot": args.low_shot,
        "hold_out": args.hold_out if len(held) else None,
        "classes": len(train.classes),
        "train_images": len(indices),
        "held_out_images": len(held),
        "val_images": len(val.labels),
    }
    state = Path(f"{args.out}.state") if args.out else None
    whole = (train.source, indices, train.labels, len(train.classes), settings, device)
    training = LinearTraining(trunk, *whole, state=state, identity=protocol)
    if args.resume:
        training.resume()
    bank = training.run()

    best, chosen = 0, {"chosen": {"features": next(iter(settings.columns)), "lr": settings.rates[0]}}
    if len(held):
        rows = extract(trunk, train.source, settings, device, "held-out features", held).to(device)
        best, chosen = choose(bank, rows, train.labels[held].to(device), settings.rates)
    rows = extract(trunk, val.source, settings, device, "val features").to(device)
    if args.save and rank() == 0:
        with torch.no_grad():
            decided = torch.cat([bank(part)[best].argmax(1) for part in rows.split(1024)]).cpu().numpy()
        labels = {"val_labels": val.labels.numpy(), "train_labels": train.labels[indices].numpy()}
        names = {"val_names": names_of(val), "classes": train.classes}
        save_arrays({"predicted": decided, **labels, **names}, args.save)
    accuracy = 100 * int(bank.correct(rows, val.labels.to(device))[best]) / len(rows)
    trivial = round(majority_accuracy(train.labels[indices], val.labels), 3)
    result = {"linear": round(accuracy, 3), "baseline": {"name": MAJORITY, "linear": trivial}}
    publish({**protocol, **chosen, **result, **environment_info()}, args.out)

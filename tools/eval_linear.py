"""Linear accuracy of a frozen backbone on labelled images. Several processes: tools/dist_eval.sh.

``sweep``: learning rates x features, all heads at once; the best on held-out training images is tested on val, once.
``dino``: DINO's linear evaluation: one head, SGD, cosine, random crops; the last epoch's head is tested on val.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor

from mst_pretrain.evaluation.arguments import add_image_arguments, positive, precision_of, trunk_of
from mst_pretrain.evaluation.features import block_widths, feature_columns
from mst_pretrain.evaluation.heads import HeadBank
from mst_pretrain.evaluation.labelled import (
    MAJORITY,
    Labelled,
    hold_out,
    low_shot,
    majority_accuracy,
    names_of,
    open_train_val,
)
from mst_pretrain.evaluation.linear import LinearSettings, LinearTraining, extract
from mst_pretrain.evaluation.ranks import publish, rank, run_tool, save_arrays, start
from mst_pretrain.method.backbones import Trunk
from mst_pretrain.runtime.environment import environment_info
from mst_pretrain.runtime.errors import UserError

# ours: DINOv2's style, per 256 images
SWEEP_RATES = [1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0]
SWEEP_EPOCHS = 10  # ours
DINO_RATE, DINO_EPOCHS = 1e-3, 100  # [code: DINO]
BATCH = 1024  # [code: DINO]
HELD_OUT = 0.1  # ours


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line; its contradictions are refused."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_image_arguments(parser)
    parser.add_argument("--protocol", choices=("sweep", "dino"), default="sweep")
    parser.add_argument(
        "--augment", choices=("crop", "none"), default="crop", help="none: features computed once"
    )
    parser.add_argument("--epochs", type=positive, help=f"default: {SWEEP_EPOCHS}, dino: {DINO_EPOCHS}")
    parser.add_argument("--lr", type=float, nargs="+", help="per 256 images (default: the protocol's)")
    parser.add_argument("--blocks", type=positive, nargs="+", help="last blocks (default: 1 4, dino: 4)")
    parser.add_argument(
        "--avgpool",
        action="store_true",
        help="dino, with --blocks 1: the mean of the patch tokens beside [CLS], DINO's setting for ViT-B (a sweep "
        "tries it anyway)",
    )
    parser.add_argument(
        "--train-batch-size", type=positive, default=BATCH, help="per step, all processes together"
    )
    parser.add_argument("--low-shot", type=float, help="train on this share of every class, e.g. 0.01 or 0.1")
    parser.add_argument(
        "--hold-out", type=float, default=HELD_OUT, help="share of every class to choose by (sweep)"
    )
    parser.add_argument("--save", help="also write labels and predictions there (.npz)")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue from OUT.state: heads and momentum after the last epoch",
    )
    args = parser.parse_args(argv)
    for name, value in (("--low-shot", args.low_shot), ("--hold-out", args.hold_out)):
        if value is not None and not 0 < value < 1:
            raise UserError(f"{name} {value} must lie between 0 and 1, e.g. 0.1.")
    if args.lr and min(args.lr) <= 0:
        raise UserError(f"--lr {min(args.lr)} must be above 0.")
    if args.resume and not args.out:
        raise UserError("--resume needs --out FILE: the state lies beside it as FILE.state.")
    if args.protocol == "dino" and (
        args.augment == "none" or len(args.lr or [1]) > 1 or len(args.blocks or [1]) > 1
    ):
        raise UserError(
            "--protocol dino trains one head on random crops: one --lr, one --blocks, --augment crop."
        )
    if args.avgpool and args.protocol != "dino":
        raise UserError(
            "--avgpool belongs to --protocol dino; a sweep tries every --blocks with and without the patch tokens' "
            "mean. Leave it out."
        )
    if args.avgpool and args.blocks != [1]:
        raise UserError(
            "--avgpool needs --blocks 1: DINO's evaluation puts the patch tokens' mean beside the last [CLS] alone."
        )
    return args


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


def main(argv: list[str] | None = None) -> None:
    """Parse, train the heads, choose, test, print one JSON line."""
    args = parse(argv)
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


if __name__ == "__main__":
    run_tool(main)

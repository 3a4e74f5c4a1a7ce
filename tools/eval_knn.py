"""k-NN accuracy of a pretrained backbone on labelled folders: TRAIN/CLASS/IMAGE and VAL/CLASS/IMAGE."""

from __future__ import annotations

import argparse
import json

import torch

from mst_pretrain.backbones import build_trunk
from mst_pretrain.checkpoint_io import load_backbone
from mst_pretrain.data.sources import open_source
from mst_pretrain.errors import UserError, run_cli
from mst_pretrain.evaluation.features import extract_features
from mst_pretrain.evaluation.knn import knn_accuracy


def main() -> None:
    """Parse, extract, vote, print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("train", help="folder with one folder of images per class")
    parser.add_argument("val", help="the same classes")
    parser.add_argument("--checkpoint", help="pretraining checkpoint; without it: random weights")
    parser.add_argument("--prefix", default="teacher.backbone.", help="'' for an exported timm-keyed file")
    parser.add_argument("--model", default="vit_small_patch16_224", help="timm name of the backbone")
    parser.add_argument("--model-args", type=json.loads, default={}, help="JSON, e.g. '{\"patch_size\": 8}'")
    parser.add_argument("--resize", type=int, default=256)
    parser.add_argument("--crop", type=int, default=224)
    parser.add_argument("-k", type=int, nargs="+", default=[10, 20, 100, 200])
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()

    train_source, val_source = open_source(args.train, labelled=True), open_source(args.val, labelled=True)
    assert train_source.labels is not None and val_source.labels is not None
    if unknown := sorted(set(val_source.classes) - set(train_source.classes)):
        raise UserError(f"{args.val} has classes that {args.train} lacks: {unknown[:5]}.")
    to_train = [train_source.classes.index(name) for name in val_source.classes]
    torch.manual_seed(0)
    trunk = build_trunk(args.model, **args.model_args)
    if args.checkpoint:
        print(f"{args.checkpoint}: {load_backbone(trunk, args.checkpoint, args.prefix)}")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    options = {
        "resize": args.resize,
        "crop": args.crop,
        "batch_size": args.batch_size,
        "workers": args.workers,
    }
    train = extract_features(trunk, train_source, device=device, **options)
    val = extract_features(trunk, val_source, device=device, **options)
    ks = [k for k in args.k if k <= len(train)] or [len(train)]
    val_labels = torch.tensor([to_train[label] for label in val_source.labels])
    accuracy = knn_accuracy(train, torch.tensor(train_source.labels), val, val_labels, ks)
    protocol = {"model": args.model, "checkpoint": args.checkpoint, "resize": args.resize, "crop": args.crop}
    result = {f"knn_{k}": round(value, 3) for k, value in accuracy.items()}
    print(json.dumps({**protocol, "train_images": len(train), "val_images": len(val), **result}))


if __name__ == "__main__":
    run_cli(main)

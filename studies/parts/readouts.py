"""Read-outs of the study: k-NN and linear accuracy on Tiny-ImageNet's val photos, dense probe on CamVid's."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from mst_pretrain.data.decode import decode_rgb
from mst_pretrain.data.sources import ImageSource
from mst_pretrain.evaluation.features import extract_features, feature_columns
from mst_pretrain.evaluation.heads import HeadBank, bank_optimizer, cosine_factor, train_step
from mst_pretrain.evaluation.knn import knn_predict
from mst_pretrain.evaluation.labelled import hold_out, open_train_val
from mst_pretrain.evaluation.linear import batches_of_epoch
from mst_pretrain.evaluation.trunk import load_trunk
from mst_pretrain.method.backbones import Trunk

from .dense import load_frames, position_prior, probe
from .report import ReadOut

NEIGHBOURS = 20
RATES = [0.01, 0.03, 0.1, 0.3, 1.0]
LINEAR_EPOCHS, LINEAR_BATCH, HELD_OUT = 30, 256, 0.1
BLOCKS = 4
DENSE_SIZE = (192, 256)  # height, width: 24 x 32 tokens of 8 pixels
PIXELS = 16  # side of the small picture that stands for raw pixels


class Evaluation:
    """The labelled photos and frames, opened once.

    Args:
        data: Folder of the real photos.
        photos: Labelled train and val photos; those used for pretraining train k-NN and the heads.
        size: Side of a photo.
        patch: Side of a patch, the cell of the raw-pixel dense features.
    """

    def __init__(self, data: Path, photos: list[str], size: int, patch: int) -> None:
        self.train, self.val = open_train_val(*photos)
        camvid = data / "camvid-as-cityscapes"
        self.frames, self.train_ids = load_frames(camvid, "train", DENSE_SIZE, None)
        self.val_frames, _ = load_frames(camvid, "val", DENSE_SIZE, self.train_ids)
        self.size, self.patch = size, patch
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def of_checkpoint(self, checkpoint: Path, seed: int) -> ReadOut:
        """What a pretraining checkpoint's teacher is worth."""
        trunk, _ = load_trunk(str(checkpoint))
        columns = feature_columns(trunk, (1, BLOCKS), avgpool=True)
        train, val = (
            extract_features(
                trunk, part.source, self.size, self.size, 256, device=self.device, blocks=BLOCKS, avgpool=True
            )
            for part in (self.train, self.val)
        )
        cls = slice(*columns["last1"])
        confusion = probe(
            partial(dense_features, trunk),
            self.frames,
            self.val_frames,
            len(self.train_ids),
            seed,
            self.device,
        )
        return ReadOut(
            self.knn(train[:, cls], val[:, cls]), self.linear(columns, train, val, seed), confusion
        )

    def of_pixels(self) -> ReadOut:
        """The same of raw pixels: small pictures, and the pixels of each patch."""
        train, val = (small_pictures(part.source) for part in (self.train, self.val))
        mean, std = train.mean(0), train.std(0)
        train, val = (train - mean) / std, (val - mean) / std
        confusion = probe(
            lambda images: F.pixel_unshuffle(images, self.patch),
            self.frames,
            self.val_frames,
            len(self.train_ids),
            0,
            self.device,
        )
        columns = {"pixels": (0, train.shape[1])}
        return ReadOut(self.knn(train, val), self.linear(columns, train, val, 0), confusion)

    def of_position_prior(self) -> ReadOut:
        """The dense baseline that looks at no pixel."""
        return ReadOut(None, None, position_prior(self.frames, self.val_frames, len(self.train_ids)))

    def knn(self, train: Tensor, val: Tensor) -> Tensor:
        """[M] bool: is the vote right."""
        here = (part.to(self.device) for part in (train, self.train.labels, val))
        return knn_predict(*here, [NEIGHBOURS])[NEIGHBOURS].cpu() == self.val.labels

    def linear(self, columns: dict[str, tuple[int, int]], train: Tensor, val: Tensor, seed: int) -> Tensor:
        """[M] bool: the head that is best on held-out training photos, on val."""
        kept, held = hold_out(self.train.labels, HELD_OUT, seed)
        train, val, labels = (part.to(self.device) for part in (train, val, self.train.labels))
        bank = HeadBank(columns, RATES, len(self.train.classes), seed).to(self.device)
        optimizer = bank_optimizer(bank)
        for epoch in range(LINEAR_EPOCHS):
            batches = batches_of_epoch(len(kept), LINEAR_BATCH, seed, epoch)
            for step, batch in enumerate(batches):
                rows = kept[batch]
                factor = cosine_factor(epoch * len(batches) + step, LINEAR_EPOCHS * len(batches))
                train_step(bank, optimizer, train[rows], labels[rows], len(batch), factor)
        best = int(bank.correct(train[held], labels[held]).argmax())
        return bank(val)[best].argmax(1).cpu() == self.val.labels


@torch.no_grad()
def dense_features(trunk: Trunk, images: Tensor) -> Tensor:
    """Patch tokens of the last four blocks, each through the last norm: [B, 4 * D, h, w]."""
    maps = trunk.forward_intermediates(images, indices=BLOCKS, norm=True, intermediates_only=True)
    return torch.cat(list(maps), 1)


def small_pictures(source: ImageSource) -> Tensor:
    """Every photo as 16 x 16 pixels, [N, 768] float32 in [0, 1]."""
    rows = []
    for index in range(len(source)):
        image = decode_rgb(source.read(index), source.name(index))
        small = image.resize((PIXELS, PIXELS), Image.Resampling.BOX)
        rows.append(torch.frombuffer(bytearray(small.tobytes()), dtype=torch.uint8))
    return torch.stack(rows).float() / 255

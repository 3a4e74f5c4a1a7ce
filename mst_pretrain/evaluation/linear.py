"""Linear classification of frozen features: DINO's protocol, and a sweep chosen on held-out training images."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from ..checkpoints.storage import load_checkpoint, save_atomic
from ..data.decode import decode_rgb
from ..data.multicrop import BOX_DRAWS, CropRecipe, random_boxes
from ..data.sources import ImageSource
from ..method.backbones import Trunk
from ..runtime.errors import UserError
from ..runtime.progress import Progress
from .features import NORMALIZE, device_features, extract_features, image_loader
from .heads import HeadBank, bank_optimizer, cosine_factor, train_step
from .ranks import rank, world_size

TRAIN_CROP_SCALE = (0.08, 1.0)  # torchvision's RandomResizedCrop


@dataclass
class LinearSettings:
    """How heads are trained.

    Attributes:
        columns: (start, stop) of each choice of features, see ``feature_columns``.
        rates: Learning rates per 256 images of the batch.
        epochs: Passes over the training images.
        batch: Images per step, over all processes.
        step_each_epoch: The cosine moves once per epoch [code: DINO] instead of once per step.
        augment: Random resized crop and flip; False trains on cached features of the centre crop.
        seed: Of heads, order and crops.
        resize: The short side before the centre crop.
        dtype: ``float32`` or ``bfloat16``, of the trunk's forward.
        blocks: Last blocks extracted; ``columns`` lie in these.
        avgpool: Whether ``columns`` reach into the mean of the patch tokens.
    """

    columns: dict[str, tuple[int, int]]
    rates: list[float]
    epochs: int
    batch: int
    step_each_epoch: bool = False
    augment: bool = True
    seed: int = 0
    resize: int = 256
    crop: int = 224
    forward_batch: int = 64
    workers: int = 2
    blocks: int = 4
    avgpool: bool = True
    dtype: str = "float32"

    @property
    def scaled_rates(self) -> list[float]:
        """Rates at this batch."""
        return [rate * self.batch / 256 for rate in self.rates]


def extract(
    trunk: Trunk,
    source: ImageSource,
    settings: LinearSettings,
    device: torch.device,
    what: str,
    indices: Tensor | None = None,
) -> Tensor:
    """Centre-crop features under the settings, of some images or all, [N, F] float32 on the CPU."""
    s = settings
    sizes = (s.resize, s.crop, s.forward_batch, s.workers)
    some = None if indices is None else indices.tolist()
    return extract_features(trunk, source, *sizes, device, s.blocks, s.avgpool, what, some, s.dtype)


class RandomCrops(Dataset):
    """Random resized crop (bilinear), flip, normalise [code: DINO], asked for as (epoch, index).

    A sample is a function of (seed, epoch, index) alone.
    """

    def __init__(self, source: ImageSource, crop: int, seed: int) -> None:
        self.source, self.seed = source, seed
        self.recipe = CropRecipe(size=crop, scale=TRAIN_CROP_SCALE)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, item: tuple[int, int]) -> tuple[Tensor, int]:
        epoch, index = item
        rng = np.random.default_rng([self.seed, epoch, index])
        image = decode_rgb(self.source.read(index), self.source.name(index))
        draws = rng.random((1, BOX_DRAWS))
        left, top, width, height = random_boxes(image.width, image.height, (self.recipe,), draws)[0].tolist()
        box = (left, top, left + width, top + height)
        size = self.recipe.height_width
        image = image.crop(box).resize((size[1], size[0]), Image.Resampling.BILINEAR)
        if rng.random() < self.recipe.flip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return NORMALIZE(image), index


def batches_of_epoch(count: int, batch: int, seed: int, epoch: int) -> list[Tensor]:
    """A seeded order of ``count`` images in batches; the last may be smaller, no image is left out."""
    order = np.random.default_rng([seed, epoch]).permutation(count)
    return list(torch.from_numpy(order).split(batch))


@dataclass
class LinearTraining:
    """Trains a bank of heads on some images of a source.

    Args:
        trunk: Frozen, on ``device``.
        indices: [n] int64, the images of the source that are trained on.
        labels: [N] int64, of all images of the source.
        state: Where heads, momentum and epoch are kept after every epoch; None keeps nothing.
        identity: Must be equal for a kept state to be continued.
    """

    trunk: Trunk
    source: ImageSource
    indices: Tensor
    labels: Tensor
    classes: int
    settings: LinearSettings
    device: torch.device
    state: Path | None = None
    identity: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        s = self.settings
        self.bank = HeadBank(s.columns, s.scaled_rates, self.classes, s.seed).to(self.device)
        self.optimizer = bank_optimizer(self.bank)
        self.labels = self.labels.to(self.device)
        self.done = 0
        self.cached: Tensor | None = None

    def run(self) -> HeadBank:
        """Train to the last epoch, from the first or where :meth:`resume` found it."""
        s = self.settings
        if not s.augment and self.cached is None and self.done < s.epochs:
            arguments = (self.trunk, self.source, s, self.device, "train features")
            self.cached = extract(*arguments, self.indices)
        steps = -(-len(self.indices) // s.batch)
        epochs = range(self.done, s.epochs)
        progress = Progress(f"linear, {s.epochs} epochs of {steps} steps", len(epochs) * steps)
        for number in progress.over(self._steps(epochs)):
            if number % steps == 0:
                self.done = number // steps
                self._keep()
        return self.bank

    def _steps(self, epochs: range) -> Iterator[int]:
        """Do all steps; yields the number finished since the first epoch."""
        s = self.settings
        for epoch in epochs:
            batches = batches_of_epoch(len(self.indices), s.batch, s.seed, epoch)
            rows = self._cached_rows(batches) if self.cached is not None else self._fresh_rows(batches, epoch)
            for step, (batch, (features, labels)) in enumerate(zip(batches, rows, strict=True)):
                passed = epoch if s.step_each_epoch else epoch + step / len(batches)
                factor = cosine_factor(passed, s.epochs)
                train_step(self.bank, self.optimizer, features, labels, len(batch), factor)
                yield epoch * len(batches) + step + 1

    def _cached_rows(self, batches: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        assert self.cached is not None
        for batch in batches:
            mine = batch[rank() :: world_size()]
            yield self.cached[mine].to(self.device), self.labels[self.indices[mine].to(self.device)]

    def _fresh_rows(self, batches: Sequence[Tensor], epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Features of new crops: this process's share of every batch, in forwards of ``forward_batch``."""
        s = self.settings
        shares = [self.indices[batch[rank() :: world_size()]] for batch in batches]
        pieces = [[piece for piece in mine.split(s.forward_batch) if len(piece)] for mine in shares]
        sampler = [[(epoch, int(index)) for index in piece] for parts in pieces for piece in parts]
        crops = RandomCrops(self.source, s.crop, s.seed)
        loaded = iter(image_loader(crops, self.device, s.workers, batch_sampler=sampler))
        forward = partial(device_features, self.trunk, self.device, s.dtype, s.blocks, s.avgpool)
        for mine, parts in zip(shares, pieces, strict=True):
            rows = [forward(next(loaded)[0]) for _ in parts]
            empty = torch.empty(0, max(stop for _, stop in s.columns.values()), device=self.device)
            yield torch.cat([*rows, empty]), self.labels[mine.to(self.device)]

    def _keep(self) -> None:
        if self.state is not None and rank() == 0:
            kept = {"bank": self.bank.state_dict(), "optimizer": self.optimizer.state_dict()}
            save_atomic({**kept, "done": self.done, "identity": self.identity}, self.state)

    def resume(self) -> None:
        """Continue from the kept state, if there is one; that of another evaluation is refused."""
        if self.state is None or not self.state.is_file():
            return
        kept = load_checkpoint(self.state)
        if kept.get("identity") != self.identity:
            raise UserError(
                f"{self.state} is of an evaluation with other arguments. Repeat that one's, or remove the file."
            )
        self.bank.load_state_dict(kept["bank"])
        self.optimizer.load_state_dict(kept["optimizer"])
        self.done = int(kept["done"])
        if rank() == 0:
            print(f"{self.state}: {self.done} of {self.settings.epochs} epochs are done", file=sys.stderr)

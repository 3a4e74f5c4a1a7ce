"""Batches whose images are decoded and cut by the model's device, prepared while it makes the step before."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from mmengine.dist import get_world_size
from mmengine.registry import FUNCTIONS
from torch import Tensor
from torch.utils.data import DataLoader, default_collate

from ..runtime.errors import InvalidValue
from .datasets import UnlabelledImages, packed
from .device_crops import cut_on_device
from .device_decode import can_decode, decode_jpegs, upright
from .multicrop import MultiCrop
from .pixel_cache import choose_cache

T = TypeVar("T")
PIXELS = 2**24  # of the images that are cut together
SIMILAR = 0.75  # the longer sides of such images


@FUNCTIONS.register_module()
def collate_for_device(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Samples of :class:`UnlabelledImages`, with ``decode='device'``: the bytes of all images are one tensor."""
    data = [sample["data"] for sample in samples]
    others = [{key: value for key, value in sample.items() if key != "data"} for sample in samples]
    return {
        **default_collate(others),
        "data": torch.cat(data),
        "lengths": torch.tensor([len(one) for one in data]),
    }


def crops_of(
    loader: DataLoader, device: torch.device, say: Callable[[str], object]
) -> Iterable[dict[str, Any]]:
    """The batches of a loader; what its :class:`UnlabelledImages` leave to the model's device is done there.

    Args:
        loader: Not begun yet: its workers share the cache that is made here.
        device: Of the model.
        say: Is told where decoded images are kept.

    Raises:
        InvalidValue: The device cannot decode, or see :func:`choose_cache`.
    """
    dataset = loader.dataset
    if not isinstance(dataset, UnlabelledImages):
        return loader
    if dataset.on_device and device.type not in ("cpu", "cuda"):
        raise InvalidValue(
            f"decode='device' works on GPUs with CUDA and on the CPU, not on '{device}'; choose 'host'"
        )
    if dataset.on_device and not can_decode(device):
        raise InvalidValue(
            f"decode='device': this torchvision cannot decode a JPEG on '{device}'; it may lack nvJPEG. Choose 'host'"
        )
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", get_world_size()))  # torchrun's, else all there are
    context = loader.multiprocessing_context
    method = context.get_start_method() if context is not None else None
    on = device if dataset.on_device else None
    dataset.cache, why = choose_cache(dataset.cache_place, dataset.source, on, processes, method)
    say(why)
    return prepared_ahead(loader, DeviceBatches(dataset, device), device) if on else loader


class DeviceBatches:
    """From what the workers read to crops on a device; a batch comes out as the workers' own crops would.

    Args:
        dataset: Of the samples; an image that the device cannot decode goes its way on the CPU.
        device: Of the model.
    """

    def __init__(self, dataset: UnlabelledImages, device: torch.device) -> None:
        self.dataset, self.device = dataset, device

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Decode and cut a batch of :func:`collate_for_device`."""
        images = self._images(batch)
        crops = cut_batch(images, batch["boxes"], batch["flips"], self.dataset.crops, self.device)
        views = len(self.dataset.crops.global_crops)
        parameters = batch["parameters"]
        return {
            **crops,
            "global_parameters": parameters[:, :views],
            "local_parameters": parameters[:, views:],
            **{key: batch[key] for key in ("seed", "index", "faults")},
        }

    def _images(self, batch: dict[str, Any]) -> list[Tensor]:
        """The pixels of each image, [3, H, W] uint8 on the device, upright; replaced ones change the batch."""
        parts = batch["data"].split(batch["lengths"].tolist())
        forms, indices, cache = batch["form"].tolist(), batch["index"].tolist(), self.dataset.cache
        jpegs = [place for place, form in enumerate(forms) if form[0]]
        decoded = dict(zip(jpegs, decode_jpegs([parts[place] for place in jpegs], self.device), strict=True))
        images = []
        for place, (is_jpeg, orientation, height, width, keep) in enumerate(forms):
            if not is_jpeg and not len(parts[place]):
                assert cache is not None
                images.append(cache.get(indices[place]))
                continue
            pixels: Tensor | None
            if is_jpeg:
                pixels = decoded[place]
                pixels = None if pixels is None else upright(pixels, orientation)
            else:
                pixels = parts[place].view(3, height, width).to(self.device, non_blocking=True)
            if pixels is None or pixels.shape[1:] != (height, width):
                pixels, keep = self._on_cpu(batch, place).to(self.device), False
            if keep and cache is not None and cache.device:
                cache.put(indices[place], pixels)
            images.append(pixels)
        return images

    def _on_cpu(self, batch: dict[str, Any], place: int) -> Tensor:
        """The pixels of an image that the device cannot decode, or of the one that replaces it in the batch."""
        epoch, index = batch["asked"][place].tolist()
        common, image = self.dataset.find(epoch, index, on_device=False)
        for key, value in packed(image).items():
            if key in batch and key != "data":
                batch[key][place] = value
        batch["index"][place] = common["index"]
        batch["faults"][place] = common["faults"]
        assert image.pixels is not None
        return image.pixels


def cut_batch(
    images: list[Tensor], boxes: Tensor, flips: Tensor, crops: MultiCrop, device: torch.device
) -> dict[str, Tensor]:
    """The crops of a batch of images.

    Args:
        images: [3, H, W] uint8 each, on the device.
        boxes: [B, N, 4] int64 left, top, right, bottom, on the CPU.
        flips: [B, N] bool, on the CPU.
        crops: Tells their sizes.
        device: Where the images are.

    Returns:
        ``global_crops`` [B, V, 3, H, W] and ``local_crops`` [B, L, 3, h, w] uint8, view after view in memory.
    """
    views, batch = len(crops.global_crops), len(images)
    groups = _groups([max(image.shape[1:]) for image in images])
    order = torch.tensor([place for group in groups for place in group])
    placed = torch.cat([boxes.flatten(1)[order], flips[order], order[:, None]], 1)
    if device.type == "cuda":
        placed = placed.pin_memory()
    placed = placed.to(device, non_blocking=True)
    found, result = 4 * boxes.shape[1], {}
    for kind, part, recipe in (
        ("global", slice(views), crops.recipes[0]),
        ("local", slice(views, None), crops.local_crop),
    ):
        count = len(crops.recipes[part])
        result[f"{kind}_crops"] = torch.empty(
            (count, batch, 3, *recipe.height_width), dtype=torch.uint8, device=device
        )
    start = 0
    for group in groups:
        canvas = _canvas([images[place] for place in group], device)
        rows = placed[start : start + len(group)]
        start += len(group)
        own_boxes = rows[:, :found].unflatten(1, (-1, 4))
        own_flips, places = rows[:, found:-1] > 0, rows[:, -1]
        for kind, part in (("global", slice(views)), ("local", slice(views, None))):
            out = result[f"{kind}_crops"]
            if len(out):
                cut = cut_on_device(canvas, own_boxes[:, part], own_flips[:, part], *out.shape[-2:])
                out.index_copy_(1, places, cut.transpose(0, 1))
    return {name: crop.transpose(0, 1) for name, crop in result.items()}


def _groups(sides: list[int]) -> list[list[int]]:
    """Places of images with similar longer sides, few enough to be cut together."""
    groups: list[list[int]] = []
    for place in sorted(range(len(sides)), key=lambda place: -sides[place]):
        largest = sides[groups[-1][0]] if groups else 0
        if largest == 0 or sides[place] < SIMILAR * largest or (len(groups[-1]) + 1) * largest**2 > PIXELS:
            groups.append([])
        groups[-1].append(place)
    return groups


def _canvas(images: list[Tensor], device: torch.device) -> Tensor:
    """[B, 3, H, W] uint8 with each image in its upper left corner; H and W are multiples of 64, so that few differ."""
    height, width = (max(image.shape[axis] for image in images) for axis in (1, 2))
    canvas = torch.zeros(
        (len(images), 3, height + -height % 64, width + -width % 64), dtype=torch.uint8, device=device
    )
    places = [own[:, : image.shape[1], : image.shape[2]] for own, image in zip(canvas, images, strict=True)]
    torch._foreach_copy_(places, images)
    return canvas


def prepared_ahead(
    loader: Iterable[dict[str, Any]],
    prepare: Callable[[dict[str, Any]], dict[str, Any]],
    device: torch.device,
) -> Iterator[dict[str, Any]]:
    """``prepare`` each batch: on a GPU in a stream and a thread of their own, while the batch before is used.

    Args:
        loader: Its iterator is made at once.
        prepare: Gives tensors on the device.
        device: On a CPU, each batch is prepared when it is asked for.
    """
    batches = iter(loader)
    if device.type != "cuda":
        return map(prepare, batches)
    stream = torch.cuda.Stream(device)

    def following() -> tuple[dict[str, Any], torch.cuda.Event] | None:
        batch = next(batches, None)
        if batch is None:
            return None
        with torch.cuda.device(device), torch.cuda.stream(stream):
            batch = prepare(batch)
            return batch, stream.record_event()

    def handed_over() -> Iterator[dict[str, Any]]:
        for batch, ready in one_ahead(following):
            now = torch.cuda.current_stream(device)
            now.wait_event(ready)
            for value in batch.values():
                if isinstance(value, Tensor) and value.is_cuda:
                    value.record_stream(now)  # its memory is not given away before the step has read it
            yield batch

    return handed_over()


def one_ahead(make: Callable[[], T | None]) -> Iterator[T]:
    """What ``make`` gives, until it gives None; a thread makes the next one while this one is used."""
    with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
        coming = pool.submit(make)
        while (made := coming.result()) is not None:
            coming = pool.submit(make)
            yield made

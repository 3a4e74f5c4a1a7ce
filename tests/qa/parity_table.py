"""Do our backbones compute what timm's do? Families x sizes x {values, gradients} as one Markdown table.

    python tests/qa/parity_table.py [--small] [--families NAME ...] [--out parity.json]

Of each family one network of random weights is built twice, by timm and by us. A cell is the largest deviation
|a - b|.max() / |b|.max(): *values* over the maps of four blocks (of a Swin, of four stages), *gradients* over every
weight and the image, of one weighted sum of these maps; a gradient below a thousandth of the largest is measured
against that thousandth. Sizes: the model's own, a larger, one that is not square, one that no patch divides (both
networks then see the image with zeros to the right and below). Exit code 1 when a cell is above 1e-5.

``--small``: two blocks of width 32, as the test suite runs them.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from mst_pretrain.method.backbones import build_trunk, forward_trunk
from mst_pretrain.runtime.errors import run_cli
from mst_transfer.backbones import MSTSwin, MSTVisionTransformer
from mst_transfer.backbones.base import pad_to_multiple

LIMIT = 1e-5  # relative; float32 sums in another order differ by less
SIZES = ("native", "larger", "not square", "odd")
SMALL_VIT: dict[str, Any] = dict(embed_dim=32, depth=2, num_heads=2)
SMALL_SWIN: dict[str, Any] = dict(embed_dim=8, depths=(2, 2, 2, 2), num_heads=(1, 1, 2, 2))
Maps = Callable[[Tensor], list[Tensor]]


@dataclass(frozen=True)
class Case:
    """One row: a network of timm, and which of ours computes it.

    Attributes:
        family: As the table calls it.
        name: timm name.
        ours: ``backbone`` (MSTVisionTransformer, MSTSwin) or ``trunk`` (of pretraining).
        arguments: Of both.
        options: Of our backbone alone.
        native: Pixels per side, where the name's own are too many for a table.
    """

    family: str
    name: str
    ours: str = "backbone"
    arguments: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_swin(self) -> bool:
        """A Swin, or else a ViT."""
        return self.name.startswith("swin")

    @property
    def title(self) -> str:
        """First cell of the row."""
        said = "".join(f", {key} {value}" for key, value in {**self.arguments, **self.options}.items())
        return f"{self.family}: {self.name}{said} ({self.ours})"


_PAIR = ("backbone", "trunk")
CASES = (
    *(
        Case("ViT", name, ours)
        for name in ("vit_small_patch16_224", "vit_base_patch16_224")
        for ours in _PAIR
    ),
    *(Case("ViT", "vit_small_patch8_224", ours, {"img_size": 96}) for ours in _PAIR),
    *(Case("DINOv2", "vit_small_patch14_dinov2", ours, {"img_size": 98}) for ours in _PAIR),
    *(Case("DINOv2, registers", "vit_small_patch14_reg4_dinov2", ours, {"img_size": 224}) for ours in _PAIR),
    *(
        Case("DINOv3", name, ours)
        for name in ("vit_small_patch16_dinov3", "vit_base_patch16_dinov3")
        for ours in _PAIR
    ),
    *(Case("DINOv3, biases", "vit_small_patch16_dinov3_qkvb", ours) for ours in _PAIR),
    Case("DINOv3, windows", "vit_small_patch16_dinov3", options={"window_size": 64, "global_blocks": ()}),
    *(Case("distilled DeiT", "deit_small_distilled_patch16_224", ours) for ours in _PAIR),
    Case("SigLIP", "vit_base_patch16_siglip_224"),
    *(
        Case("Swin", f"swin_{size}_patch4_window7_224", ours)
        for size in ("tiny", "small", "base", "large")
        for ours in _PAIR
    ),
    *(Case("Swin", "swin_base_patch4_window12_384", ours) for ours in _PAIR),
)


def image_sizes(case: Case, native: tuple[int, int], patch: int) -> dict[str, tuple[int, int]]:
    """(height, width) of each column.

    MSTSwin pads a map that is not a multiple of the window as mmdet does, timm in another order: so its larger sizes
    have whole windows in the first two stages and one in the others, see :func:`window_step`.
    """
    side = native[0]
    if case.is_swin and case.ours == "backbone":
        return {
            "native": native,
            "larger": (2 * side, 2 * side),
            "not square": (side, 2 * side),
            "odd": (side - 3, 2 * side - 1),
        }
    step = patch * (8 if case.is_swin else 1)
    wide = (side + 5 * step) // step * step
    odd = (side + patch + patch // 2 - 1, side - patch // 2 + 1)
    return {"native": native, "larger": (wide, wide), "not square": (side, wide), "odd": odd}


def randomise(module: nn.Module) -> None:
    """Every parameter from a distribution that hides nothing: no two alike, none constant."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, value in module.named_parameters():
            noise = torch.randn(value.shape, generator=generator)
            if value.dim() == 1:  # norms, biases, LayerScale
                value.copy_(
                    1 + 0.3 * noise
                    if name.endswith(("weight", "gamma", "gamma_1", "gamma_2"))
                    else 0.3 * noise
                )
            elif name.endswith("weight"):
                value.copy_(noise / value[0].numel() ** 0.5)
            else:  # positions, tokens, bias tables
                value.copy_(noise)


def build(case: Case, small: bool) -> tuple[Any, Any, Maps, Maps]:
    """timm's network and ours of the same random weights, and what each says of an image."""
    arguments = {**case.arguments}
    if small:
        patch = int(case.name.partition("patch")[2][:2].strip("_"))
        arguments |= SMALL_SWIN if case.is_swin else {**SMALL_VIT, "img_size": 4 * patch}
    if case.is_swin:
        return _build_swin(case, arguments)
    theirs: Any = timm.create_model(case.name, num_classes=0, dynamic_img_size=True, **arguments).eval()
    randomise(theirs)
    depth, patch = len(theirs.blocks), theirs.patch_embed.patch_size[0]
    taps = sorted({depth * quarter // 4 - 1 for quarter in (1, 2, 3, 4)} - {-1})
    if case.ours == "trunk":
        trunk = build_trunk(case.name, **arguments).eval()
        load(trunk, theirs)
        return (
            theirs,
            trunk,
            vit_maps(theirs, [depth - 1], patch),
            lambda x: [forward_trunk(trunk, pad_to_multiple(x, patch)).grid],
        )
    ours = MSTVisionTransformer(
        case.name,
        arguments,
        out_indices=taps,
        pyramid=False,
        normed_taps="all",
        positions="timm",
        **case.options,
    ).eval()
    load(ours.trunk, theirs)
    return theirs, ours.trunk, vit_maps(theirs, taps, patch), lambda x: list(ours(x))


def _build_swin(case: Case, arguments: dict[str, Any]) -> tuple[Any, Any, Maps, Maps]:
    shifted = {"always_partition": True} if case.ours == "backbone" else {}
    theirs: Any = timm.create_model(
        case.name, num_classes=0, strict_img_size=False, **shifted, **arguments
    ).eval()
    randomise(theirs)
    if case.ours == "trunk":
        trunk = build_trunk(case.name, **arguments).eval()
        load(trunk, theirs)
        last = lambda x: [theirs.forward_features(pad_to_multiple(x, 32)).permute(0, 3, 1, 2)]  # noqa: E731
        return theirs, trunk, last, lambda x: [forward_trunk(trunk, pad_to_multiple(x, 32)).grid]
    ours = MSTSwin(case.name, arguments, drop_path_rate=0.0).eval()
    for index in range(4):
        setattr(ours, f"norm{index}", nn.Identity())  # of a detector, in no file
    load(ours.trunk, theirs)

    def stages(x: Tensor) -> list[Tensor]:
        return theirs.forward_intermediates(pad_to_multiple(x, 4), intermediates_only=True)

    return theirs, ours.trunk, stages, lambda x: list(ours(x))


def vit_maps(model: Any, taps: Sequence[int], patch: int) -> Maps:
    """timm's own maps of some blocks, each after the last norm."""
    return lambda x: model.forward_intermediates(
        pad_to_multiple(x, patch), indices=list(taps), norm=True, intermediates_only=True
    )


def load(ours: nn.Module, theirs: nn.Module) -> None:
    """timm's weights in our trunk, which may have fewer."""
    weights = theirs.state_dict()
    ours.load_state_dict({name: weights[name] for name in ours.state_dict()})


def deviations(case: Case, size: tuple[int, int], built: tuple[Any, Any, Maps, Maps]) -> tuple[float, float]:
    """Of the values and of the gradients, at one image size."""
    theirs, ours, their_maps, our_maps = built
    results = []
    for model, maps in ((theirs, their_maps), (ours, our_maps)):
        model.zero_grad()
        images = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(2)).requires_grad_()
        found = maps(images)
        draws = torch.Generator().manual_seed(3)
        sum((y * torch.randn(y.shape, generator=draws)).sum() for y in found).backward()
        gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        results.append((found, {**gradients, "image": images.grad}))
    (expected, slopes), (found, own) = results
    if [y.shape for y in found] != [y.shape for y in expected] or not set(own) <= set(slopes):
        return float("inf"), float("inf")
    largest = max(float(slope.abs().max()) for slope in slopes.values())
    pairs = [(a.detach(), b.detach()) for a, b in zip(found, expected, strict=True)]
    values = max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)
    steep = max(
        float((own[name] - slopes[name]).abs().max()) / max(float(slopes[name].abs().max()), largest / 1000)
        for name in own
    )
    return values, steep


def measure(case: Case, small: bool) -> dict[str, tuple[float, float]]:
    """One row: (values, gradients) by the name of the size."""
    built = build(case, small)
    embed = built[0].patch_embed
    sizes = image_sizes(case, tuple(embed.img_size), embed.patch_size[0])
    return {name: deviations(case, size, built) for name, size in sizes.items()}


def main(argv: list[str] | None = None) -> int:
    """Measure every row, print the table; 1 when a cell is above the limit."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    families = list(dict.fromkeys(case.family for case in CASES))
    parser.add_argument("--families", nargs="+", choices=families, default=families, metavar="NAME")
    parser.add_argument("--small", action="store_true", help="two blocks of width 32")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write every number as JSON too")
    args = parser.parse_args(argv)
    start, rows = time.monotonic(), {}
    print(f"| network | {' | '.join(SIZES)} |\n|{'---|' * (1 + len(SIZES))}")
    for case in CASES:
        if case.family not in args.families:
            continue
        row = rows[case.title] = measure(case, args.small)
        cells = (f"{values:.1e} / {slopes:.1e}" for values, slopes in row.values())
        print(f"| {case.title} | {' | '.join(cells)} |", flush=True)
    worst = max(max(pair) for row in rows.values() for pair in row.values())
    good = worst <= LIMIT
    print(
        f"\nvalues / gradients; {len(rows)} networks, largest deviation {worst:.1e}, "
        f"{'all' if good else 'NOT all'} within {LIMIT:g}; torch {torch.__version__}, timm {timm.__version__}; "
        f"{time.monotonic() - start:.0f} s",
        file=sys.stderr,
    )
    if args.out:
        args.out.write_text(json.dumps({"limit": LIMIT, "rows": rows}, indent=2) + "\n", encoding="utf-8")
    return 0 if good else 1


if __name__ == "__main__":
    run_cli(main)

"""The networks of ``conversion_matrix.py``: of each project with random weights, of each file, and ours beside them."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
import transformers
from torch import Tensor, nn

from mst_pretrain.checkpoints.architecture import Architecture, swin, vit
from mst_pretrain.checkpoints.storage import load_checkpoint, save_atomic, save_safetensors
from mst_pretrain.checkpoints.verify import set_norm_eps
from mst_pretrain.method.mst import MST
from mst_transfer.backbones import MSTSwin
from mst_transfer.backbones.native import native_backbone

sys.path.insert(0, str(Path(__file__).parents[2] / "tests/mst_pretrain/checkpoints"))
from foreign import EVALUATED, MODELS, checkpoint, features, swin_stages
from foreign.files import Swin, ViT
from foreign.forward import patch_positions

State = dict[str, Tensor]
Forward = Callable[[Tensor], list[Tensor]]
FOREIGN = ("dino", "ibot", "esvit", "moby", "mae", "detectron2", "swin")  # cannot be installed here
TIMMS = ("mst", "timm")  # resize positions as timm does
MM = ("mmdet", "mmseg")
ALWAYS_SHIFT = (*MM, "detectron2")  # also where a map fits one window
FORMATS = ("mst", "timm", *FOREIGN[:5], *MM, "huggingface", *FOREIGN[5:])
SEED, SOURCE_SEED = 0, 1
# Patch projections, positions and class tokens of trained networks are small. Only so does another epsilon of the norms
# after them show: of numbers as large as 1 it changes too little.
EMBEDDINGS = r".*(pos_embed|position_embeddings|cls_token|patch_embed\w*\.proj\w*\.(weight|bias))"
EMBEDDING_SCALE = 0.1  # ours


@dataclass(frozen=True)
class Net:
    """One of ``foreign``'s architectures, as timm names it."""

    name: str

    @property
    def described(self) -> ViT | Swin:
        """Widths, depths, heads."""
        return MODELS[self.name]

    @property
    def is_swin(self) -> bool:
        """A Swin, or else a ViT."""
        return isinstance(self.described, Swin)

    @property
    def architecture(self) -> Architecture:
        """timm's name and arguments."""
        net = self.described
        if isinstance(net, Swin):
            return swin(net.width, net.depths, net.heads, net.window, 4)
        found = vit(net.width, net.depth, net.heads, net.patch, net.image)
        assert found is not None, "the number of heads is given"
        return found

    @property
    def native(self) -> tuple[int, int]:
        """(height, width) that it is built for."""
        return self.described.image, self.described.image

    @property
    def sizes(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """The images shown: its own, and one twice as wide."""
        return self.native, (self.native[0], 2 * self.native[1])

    @property
    def sizes_text(self) -> str:
        """For the caption."""
        return " and ".join(f"{height}x{width}" for height, width in self.sizes)

    def images(self, size: tuple[int, int]) -> Tensor:
        """One image [1, 3, H, W] of noise."""
        return torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(SEED))


def build(architecture: Architecture, **arguments: Any) -> Any:
    """timm's model in evaluation mode."""
    return timm.create_model(
        architecture.name, num_classes=0, **{**architecture.arguments, **arguments}
    ).eval()


def randomise(module: nn.Module) -> None:
    """Every parameter from a distribution that hides nothing: no two alike, none constant; embeddings small."""
    generator = torch.Generator().manual_seed(SOURCE_SEED)
    with torch.no_grad():
        for name, value in module.named_parameters():
            noise = torch.randn(value.shape, generator=generator)
            if value.dim() == 1:  # norms and biases
                value.copy_(1 + 0.3 * noise if name.endswith("weight") else 0.3 * noise)
            elif name.endswith("weight"):
                value.copy_(noise / value[0].numel() ** 0.5)
            else:  # positions, tokens, bias tables
                value.copy_(noise)
    shrink_embeddings(dict(module.named_parameters()))


def shrink_embeddings(content: Mapping[str, Any]) -> None:
    """Scale the embeddings in a state dict, or in those of a checkpoint, by :data:`EMBEDDING_SCALE` in place."""
    for name, value in content.items():
        if isinstance(value, dict):
            shrink_embeddings({key: entry for key, entry in value.items() if isinstance(key, str)})
        elif isinstance(value, Tensor) and re.fullmatch(EMBEDDINGS, name):
            value.data.mul_(EMBEDDING_SCALE)


# ---- ours ----


def ours(
    format: str,
    net: Net,
    architecture: Architecture,
    state: State,
    images: Tensor,
    out: bool = False,
    eps: float | None = None,
) -> list[Tensor]:
    """What our network of timm's keys computes, by the rules of the project that it is compared with.

    Args:
        format: The project.
        net: What was converted.
        architecture: What the converter says that it is.
        state: timm's keys; without what the project's network lacks.
        images: [1, 3, H, W].
        out: The project's file was written with ``--img-size``, so that positions are resized as timm does it.
        eps: Of the norms, as the converter reports the source's; None for timm's.
    """
    if not net.is_swin:
        by_timm = format in TIMMS or (out and format != "detectron2")
        return vit_tokens(format, architecture, state, images, net.native if by_timm else None, eps)
    if format not in ALWAYS_SHIFT:
        trunk = build(architecture, strict_img_size=False)
        trunk.load_state_dict(state)
        set_norm_eps(trunk, eps or architecture.norm_eps)
        return [trunk.forward_features(images).flatten(1, 2)]
    own = MSTSwin(architecture.name, architecture.arguments, drop_path_rate=0.0).eval()
    own.trunk.load_state_dict({key: value for key, value in state.items() if not key.startswith("norm.")})
    return without_norms(own)(images)


def without_norms(backbone: Any) -> Forward:
    """A Swin of four maps before their output norms, which no file of a backbone holds."""
    for index in range(4):
        setattr(backbone, f"norm{index}", nn.Identity())
    return lambda images: list(backbone(images))


def vit_tokens(
    format: str,
    architecture: Architecture,
    state: State,
    images: Tensor,
    native: tuple[int, int] | None,
    eps: float | None,
) -> list[Tensor]:
    """Tokens of timm's ViT: all, or those that the project gives. timm resizes positions for ``native`` by itself."""
    size = (images.shape[2], images.shape[3])
    patch = architecture.patch_size
    rows, columns = size[0] // patch, size[1] // patch
    positions, built = state["pos_embed"], size
    if positions.shape[1] != 1 + rows * columns and native is not None:
        built = native
    elif positions.shape[1] != 1 + rows * columns:
        rule = format if format in FOREIGN else "mae"  # mmseg and transformers: bicubic to (h, w), as MAE
        resized = patch_positions(rule, positions[:, 1:], (rows, columns))
        state = {**state, "pos_embed": torch.cat([positions[:, :1], resized], 1)}
    trunk = build(architecture, img_size=built, dynamic_img_size=True)
    set_norm_eps(trunk, eps or architecture.norm_eps)
    if format == "detectron2":
        state = {k: v for k, v in state.items() if k != "cls_token" and not k.startswith("norm.")}
        missing = trunk.load_state_dict(state, strict=False).missing_keys
        assert missing == ["cls_token", "norm.weight", "norm.bias"], missing
        x = trunk.patch_embed(images).flatten(1, 2) + trunk.pos_embed[:, 1:]
        return [trunk.blocks(x)]
    trunk.load_state_dict(state)
    tokens = trunk.forward_features(images)
    return [tokens[:, 1:] if format == "mmseg" else tokens]


# ---- theirs ----


def make(format: str, net: Net, work: Path) -> tuple[Path, Forward]:
    """A file of the project with random weights, and the project's network of these weights."""
    if format == "mst":
        path, teacher = mst_checkpoint(net, work)
        return path, run_timm(net, teacher, net.native)
    if format in FOREIGN:
        path = work / "source.pth"
        content = checkpoint(format, net.name, seed=SOURCE_SEED)
        shrink_embeddings(content)
        torch.save(content, path)
        return path, read_back(format, net, path, net.native)
    if format == "timm":
        model = build(net.architecture)
        randomise(model)
        path = work / "source.safetensors"
        save_safetensors(model.state_dict(), path)
        return path, read_back(format, net, path, net.native)
    if format == "huggingface":
        model = new_transformers(net)
        randomise(model)
        model.save_pretrained(work / "source")
        return work / "source", read_back(format, net, work / "source", net.native)
    blank = work / "blank.pth"  # holds nothing: the network is only built
    torch.save({"state_dict": {"backbone.blank": torch.zeros(1)}}, blank)
    native = native_backbone(net.architecture, format, blank)
    randomise(native)
    path = work / "source.pth"  # as a detector's or segmentor's training saves it
    torch.save({"meta": {}, "state_dict": {f"backbone.{k}": v for k, v in native.state_dict().items()}}, path)
    return path, run_native(net, native)


def read_back(format: str, net: Net, path: Path, built: tuple[int, int]) -> Forward:
    """The project's network of a file, read by its own loader.

    Args:
        format: The project.
        net: The architecture.
        path: The file or folder.
        built: (height, width) that the positions in it are for.
    """
    if format == "timm":
        size = {} if net.is_swin else {"img_size": built}
        state = build(net.architecture, checkpoint_path=str(path), **size).state_dict()  # strict
        return run_timm(net, state, built)
    if format == "huggingface":
        kind: Any = transformers.SwinModel if net.is_swin else transformers.ViTModel
        extra: dict[str, Any] = {} if net.is_swin else {"interpolate_pos_encoding": built == net.native}
        # Built again for every image: transformers' Swin keeps the shifts of the first.
        return lambda images: [
            kind.from_pretrained(path, add_pooling_layer=False).eval()(images, **extra).last_hidden_state
        ]
    if format in MM:
        architecture = net.architecture if net.is_swin else net.architecture.changed(img_size=built)
        return run_native(net, native_backbone(architecture, format, path))
    loaded = load_checkpoint(path)
    if format == "detectron2" and net.is_swin:
        for stage in range(4):  # a backbone's file has none of them, and they are not run
            for part in ("weight", "bias"):
                loaded["model"].setdefault(f"backbone.bottom_up.norm{stage}.{part}", torch.ones(1))
        return lambda images: swin_stages(format, net.name, loaded, images, "model")
    return lambda images: [features(format, net.name, loaded, images, EVALUATED[format])]


def run_timm(net: Net, state: State, built: tuple[int, int]) -> Forward:
    """timm's model at any image size."""
    if net.is_swin:
        trunk = build(net.architecture, strict_img_size=False)
    else:
        trunk = build(net.architecture, img_size=built, dynamic_img_size=True)
    trunk.load_state_dict(state)
    return lambda images: [
        trunk.forward_features(images).flatten(1, 2) if net.is_swin else trunk.forward_features(images)
    ]


def run_native(net: Net, native: Any) -> Forward:
    """mmdet's or mmseg's backbone: a Swin's four maps before their norms, a ViT's patch tokens."""
    if net.is_swin:
        return without_norms(native)
    return lambda images: [native(images)[0].flatten(2).transpose(1, 2)]


def new_transformers(net: Net) -> Any:
    """transformers' model with its own defaults where the architecture leaves them open."""
    shape = net.described
    if isinstance(shape, Swin):
        config: Any = transformers.SwinConfig(
            image_size=shape.image,
            embed_dim=shape.width,
            depths=list(shape.depths),
            num_heads=list(shape.heads),
            window_size=shape.window,
        )
        return transformers.SwinModel(config, add_pooling_layer=False)
    config = transformers.ViTConfig(
        image_size=shape.image,
        patch_size=shape.patch,
        hidden_size=shape.width,
        num_hidden_layers=shape.depth,
        num_attention_heads=shape.heads,
        intermediate_size=4 * shape.width,
    )
    return transformers.ViTModel(config, add_pooling_layer=False)


def mst_checkpoint(net: Net, work: Path) -> tuple[Path, State]:
    """A pretraining checkpoint of ours as its runner saves it, and the teacher's weights."""
    backbone = dict(name=net.architecture.name, **net.architecture.arguments)
    head = dict(prototypes=64, hidden_dim=32, bottleneck_dim=16)
    model = MST(backbone=backbone, head=head)
    randomise(model)
    path = work / "mst.pth"
    meta = {**model.teacher.backbone.architecture, "epoch": 3, "iter": 9}
    save_atomic({"state_dict": model.state_dict(), "meta": meta}, path)
    return path, dict(model.teacher.backbone.state_dict())


def convert_options(format: str, net: Net, size: tuple[int, int]) -> dict[str, Any]:
    """What a user has to say beside the two paths."""
    options: dict[str, Any] = {}
    if net.architecture.arguments and format not in ("mst", "huggingface"):  # these files say it themselves
        options |= {"model": net.architecture.name, "model_args": net.architecture.arguments}
    if format == "detectron2" and not net.is_swin:
        options["allow_missing"] = ["cls_token", r"norm\."]
    elif format in ALWAYS_SHIFT and net.is_swin:
        options["allow_missing"] = [r"norm\."]
    if format in TIMMS and not net.is_swin and size != net.native:
        options["image_size"] = size
    return options


__all__ = ["FOREIGN", "FORMATS", "Net", "convert_options", "make", "mst_checkpoint", "ours", "read_back"]

"""Checkpoint files with whole weights: of one network in many wrappers, and of several networks."""

import argparse
from collections import OrderedDict
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.promises.checkpoint_edits import each, inside, prefixed, saved
from tests.promises.verdicts import CheckpointMutator, State


def _safetensors(state_a: State, state_b: State, path: Path) -> Path:
    file = path.with_suffix(".safetensors")
    save_file(dict(state_a), file, metadata={"format": "pt"})
    return file


def _sharing(state: State) -> dict[str, Tensor]:
    """Returns the weights as views of one long tensor, as FSDP and DeepSpeed keep them."""
    buffer = torch.cat([tensor.flatten() for tensor in state.values()])
    parts = buffer.split([tensor.numel() for tensor in state.values()])
    return {name: part.view_as(state[name]) for name, part in zip(state, parts, strict=True)}


def _turned(tensor: Tensor) -> Tensor:
    """Returns an equal tensor that is not contiguous, if it has two axes or more."""
    return tensor.transpose(0, -1).contiguous().transpose(0, -1) if tensor.ndim > 1 else tensor


def _lightning(weights: State) -> dict[str, object]:
    return {
        "epoch": 9,
        "global_step": 100,
        "pytorch-lightning_version": "2.4.0",
        "state_dict": weights,
        "loops": {},
        "callbacks": {},
        "optimizer_states": [],
        "lr_schedulers": [],
    }


def _dino(student: State, teacher: State) -> dict[str, object]:
    head = {"head.mlp.0.weight": torch.randn(64, 192), "head.last_layer.weight_v": torch.randn(16, 64)}
    return {
        "student": {**prefixed("module.backbone.", student), **prefixed("module.", head)},
        "teacher": {**prefixed("backbone.", teacher), **head},
        "optimizer": {"state": {}, "param_groups": []},
        "epoch": 100,
        "args": argparse.Namespace(arch="vit_tiny", patch_size=16),
        "dino_loss": {"center": torch.zeros(1, 16)},
    }


def _mocov3(online: State, momentum: State) -> dict[str, object]:
    head = {"head.0.weight": torch.randn(64, 192), "head.3.weight": torch.randn(16, 64)}
    weights = {
        **prefixed("module.base_encoder.", {**online, **head}),
        **prefixed("module.momentum_encoder.", {**momentum, **head}),
        "module.predictor.0.weight": torch.randn(64, 16),
    }
    return {"epoch": 300, "arch": "vit_tiny", "state_dict": weights, "optimizer": {}}


WHOLE_WEIGHTS = (
    CheckpointMutator("plain-pth", "same", "timm's own files.", saved(lambda a, b: OrderedDict(a))),
    CheckpointMutator("plain-safetensors", "same", "timm's files of the hub.", _safetensors),
    CheckpointMutator(
        "older-torch-format",
        "same",
        "Files of before torch 1.6 are still on the net.",
        saved(lambda a, b: dict(a), legacy=True),
    ),
    CheckpointMutator(
        "in-model",
        "same",
        "DeiT and MAE put the weights under model.",
        saved(lambda a, b: {"model": a, "epoch": 300}),
    ),
    CheckpointMutator(
        "in-state-dict",
        "same",
        "Most training scripts put the weights under state_dict.",
        saved(lambda a, b: {"state_dict": a, "arch": "vit"}, ".pth.tar"),
    ),
    CheckpointMutator(
        "three-containers-deep",
        "same",
        "A wrapper's wrapper saved it; there is one network.",
        saved(lambda a, b: {"checkpoint": {"model": {"state_dict": a}}}),
    ),
    CheckpointMutator(
        "ddp", "same", "DistributedDataParallel adds module.", saved(lambda a, b: prefixed("module.", a))
    ),
    CheckpointMutator(
        "ddp-of-compiled",
        "same",
        "torch.compile inside DistributedDataParallel.",
        saved(lambda a, b: {"model": prefixed("module._orig_mod.", a)}),
    ),
    CheckpointMutator(
        "compiled-of-ddp",
        "same",
        "DistributedDataParallel inside torch.compile.",
        saved(lambda a, b: prefixed("_orig_mod.module.", a)),
    ),
    CheckpointMutator(
        "compiled-blocks",
        "same",
        "Blocks compiled one by one have _orig_mod inside their names.",
        saved(lambda a, b: inside("_orig_mod", a)),
    ),
    CheckpointMutator(
        "fsdp-blocks",
        "same",
        "FSDP wraps the network and each block.",
        saved(lambda a, b: prefixed("_fsdp_wrapped_module.", inside("_fsdp_wrapped_module", a))),
    ),
    CheckpointMutator(
        "checkpointed-blocks",
        "same",
        "Activation checkpointing wraps each block.",
        saved(lambda a, b: inside("_checkpoint_wrapped_module", a)),
    ),
    CheckpointMutator(
        "compiled-fsdp-blocks",
        "same",
        "Two wrappers in one name.",
        saved(lambda a, b: inside("_fsdp_wrapped_module._orig_mod", a)),
    ),
    CheckpointMutator(
        "lightning",
        "same",
        "Lightning's file of one network.",
        saved(lambda a, b: _lightning(prefixed("model.", a)), ".ckpt"),
    ),
    CheckpointMutator(
        "with-classifier",
        "same",
        "The head of a classifier is left out and reported.",
        saved(lambda a, b: {**a, "head.weight": torch.randn(10, 192), "head.bias": torch.zeros(10)}),
    ),
    CheckpointMutator(
        "dino",
        "same",
        "Of DINO's training file the teacher is read, by the documented rule.",
        saved(lambda a, b: _dino(b, a)),
    ),
    CheckpointMutator(
        "parameters",
        "same",
        "Saved from named_parameters(): the values are parameters.",
        saved(lambda a, b: {name: nn.Parameter(tensor) for name, tensor in a.items()}),
    ),
    CheckpointMutator(
        "not-contiguous",
        "same",
        "Weights converted from another library are transposed views.",
        saved(lambda a, b: each(_turned)(a)),
    ),
    CheckpointMutator(
        "one-storage",
        "same",
        "FSDP and DeepSpeed keep all weights in one long tensor.",
        saved(lambda a, b: _sharing(a)),
    ),
    CheckpointMutator(
        "float16",
        "same",
        "Every other precision becomes float32.",
        saved(lambda a, b: each(Tensor.half)(a)),
        expected=each(lambda t: t.half().float()),
    ),
    CheckpointMutator(
        "bfloat16",
        "same",
        "Every other precision becomes float32.",
        saved(lambda a, b: each(Tensor.bfloat16)(a)),
        expected=each(lambda t: t.bfloat16().float()),
    ),
    CheckpointMutator(
        "float64",
        "same",
        "Every other precision becomes float32.",
        saved(lambda a, b: each(Tensor.double)(a)),
    ),
)


SEVERAL_NETWORKS = (
    CheckpointMutator(
        "ema-with-module",
        "choice",
        "An average of the weights one level deeper is a network too.",
        saved(lambda a, b: {"model": b, "ema": {"module": a, "decay": 0.999}}),
        prefix="ema.module.",
    ),
    CheckpointMutator(
        "ema-with-module-online",
        "choice",
        "The trained weights beside their average.",
        saved(lambda a, b: {"model": a, "ema": {"module": b}}),
        prefix="",
    ),
    CheckpointMutator(
        "model-ema",
        "choice",
        "DeiT's file with an average of the weights.",
        saved(lambda a, b: {"model": a, "model_ema": b, "epoch": 1}),
        prefix="",
    ),
    CheckpointMutator(
        "state-dict-ema",
        "choice",
        "timm's training file; the average is the documented teacher.",
        saved(lambda a, b: {"state_dict": b, "state_dict_ema": a}),
        which="teacher",
    ),
    CheckpointMutator(
        "state-dict-ema-online",
        "choice",
        "timm's training file; the trained weights are the student.",
        saved(lambda a, b: {"state_dict": a, "state_dict_ema": b}),
        which="student",
    ),
    CheckpointMutator(
        "mocov3-base",
        "same",
        "MoCo v3's authors evaluate the base encoder; the documented rule takes it, everywhere.",
        saved(lambda a, b: _mocov3(a, b), ".pth.tar"),
    ),
    CheckpointMutator(
        "mocov3-momentum",
        "same",
        "The momentum encoder is there for who asks for it.",
        saved(lambda a, b: _mocov3(b, a), ".pth.tar"),
        prefix="module.momentum_encoder.",
    ),
    CheckpointMutator(
        "lightly",
        "choice",
        "lightly's student and teacher.",
        saved(
            lambda a, b: _lightning(
                {**prefixed("student_backbone.vit.", a), **prefixed("teacher_backbone.vit.", b)}
            ),
            ".ckpt",
        ),
        prefix="student_backbone.vit.",
    ),
    CheckpointMutator(
        "solo-learn",
        "choice",
        "solo-learn's backbone and momentum backbone.",
        saved(
            lambda a, b: _lightning({**prefixed("backbone.", a), **prefixed("momentum_backbone.", b)}),
            ".ckpt",
        ),
        prefix="backbone.",
    ),
    CheckpointMutator(
        "compiled-pair",
        "choice",
        "Two networks, with wrappers inside their names.",
        saved(
            lambda a, b: {
                **prefixed("net1.", inside("_orig_mod", a)),
                **prefixed("net2.", inside("_orig_mod", b)),
            }
        ),
        prefix="net1.",
    ),
    CheckpointMutator(
        "pair-in-depth",
        "choice",
        "Two networks three containers deep.",
        saved(lambda a, b: {"run": {"nets": {"first": a, "second": b}}}),
        prefix="run.nets.first.",
    ),
)

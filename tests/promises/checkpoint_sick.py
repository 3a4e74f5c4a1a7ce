"""Checkpoint files whose weights are not those of a whole ViT or Swin."""

import torch
from torch import Tensor

from tests.promises.checkpoint_edits import each, saved
from tests.promises.verdicts import CheckpointMutator, State


def _with(state: State, name: str, function: object) -> dict[str, object]:
    """Returns the state with one value replaced, or left out where `function` is None."""
    if function is None:
        return {key: tensor for key, tensor in state.items() if key != name}
    return {**state, name: function(state[name]) if callable(function) else function}


def _first_value(tensor: Tensor, value: float) -> Tensor:
    copy = tensor.clone()
    copy.view(-1)[0] = value
    return copy


def _int8(state: State) -> dict[str, Tensor]:
    scales = {f"{name}_scale": tensor.abs().max() / 127 for name, tensor in state.items()}
    values = {
        name: (tensor / scales[f"{name}_scale"].clamp(min=1e-12)).round().to(torch.int8)
        for name, tensor in state.items()
    }
    return {**values, **scales}


def _lora(state: State) -> dict[str, Tensor]:
    adapters: dict[str, Tensor] = {}
    for block in range(12):
        name = f"base_model.model.blocks.{block}.attn.qkv"
        adapters[f"{name}.lora_A.weight"] = torch.randn(8, 192)
        adapters[f"{name}.lora_B.weight"] = torch.zeros(576, 8)
    return adapters


def _beit(state: State) -> dict[str, Tensor]:
    weights = {name: tensor for name, tensor in state.items() if name != "pos_embed"}
    for block in range(12):
        weights[f"blocks.{block}.attn.relative_position_bias_table"] = torch.randn(732, 3)
        weights[f"blocks.{block}.gamma_1"] = torch.ones(192)
        weights[f"blocks.{block}.gamma_2"] = torch.ones(192)
    return weights


def _resnet(state: State) -> dict[str, Tensor]:
    return {
        "conv1.weight": torch.randn(64, 3, 7, 7),
        "bn1.weight": torch.ones(64),
        "layer1.0.conv1.weight": torch.randn(64, 64, 1, 1),
        "fc.weight": torch.randn(1000, 2048),
    }


SICK_WEIGHTS = (
    CheckpointMutator(
        "nan-inside",
        "refused",
        "A training that diverged.",
        saved(lambda a, b: _with(a, "blocks.3.mlp.fc1.weight", lambda t: _first_value(t, float("nan")))),
        says=("nan", "finite"),
    ),
    CheckpointMutator(
        "infinity-inside",
        "refused",
        "A float16 training that overflowed.",
        saved(lambda a, b: _with(a, "norm.weight", lambda t: _first_value(t, float("inf")))),
        says=("inf", "finite"),
    ),
    CheckpointMutator(
        "zero3-empty-weights",
        "refused",
        "ZeRO-3 leaves empty tensors in each process's file; the message names the weights or how to gather them.",
        saved(lambda a, b: {"module": each(lambda t: torch.empty(0))(a), "zero_stage": 3}),
        says=("empty", "zero", "shape"),
    ),
    CheckpointMutator(
        "meta-device",
        "refused",
        "Weights on the meta device have shapes and no values.",
        saved(lambda a, b: each(lambda t: t.to("meta"))(a)),
        says=("meta", "no values", "no data"),
    ),
    CheckpointMutator(
        "int8",
        "refused",
        "Quantized weights are not floating-point numbers.",
        saved(lambda a, b: _int8(a)),
        says=("int8", "quantized", "floating"),
    ),
    CheckpointMutator(
        "one-weight-missing",
        "refused",
        "Loading in part is training from scratch in part.",
        saved(lambda a, b: _with(a, "blocks.7.attn.proj.weight", None)),
        says=("blocks.7.attn.proj.weight",),
    ),
    CheckpointMutator(
        "weight-is-text",
        "refused",
        "A value of a wrong type is named.",
        saved(lambda a, b: _with(a, "norm.bias", "zeros")),
        says=("norm.bias",),
    ),
    CheckpointMutator(
        "weight-of-another-shape",
        "refused",
        "The fourth block comes from another network.",
        saved(lambda a, b: _with(a, "blocks.4.norm1.weight", lambda t: torch.ones(384))),
        says=("blocks.4.norm1.weight",),
    ),
    CheckpointMutator(
        "head-only",
        "refused",
        "A probe's file holds a classifier and no backbone.",
        saved(lambda a, b: {"state_dict": {"fc.weight": torch.randn(10, 192), "fc.bias": torch.zeros(10)}}),
        says=("backbone", "no network", "fc.weight"),
    ),
    CheckpointMutator(
        "optimizer-only",
        "refused",
        "DeepSpeed and Accelerate write the optimizer into a file of its own.",
        saved(
            lambda a, b: {
                "state": {0: {"step": 5, "exp_avg": torch.zeros(4)}},
                "param_groups": [{"lr": 1e-3, "params": [0]}],
            }
        ),
        says=("optimizer",),
    ),
    CheckpointMutator(
        "lora-only",
        "refused",
        "An adapter needs its base network: merge it first.",
        saved(lambda a, b: _lora(a)),
        says=("lora", "adapter"),
    ),
    CheckpointMutator(
        "number-keys",
        "refused",
        "A list of weights without names.",
        saved(lambda a, b: dict(enumerate(a.values()))),
        says=("name", "key"),
    ),
    CheckpointMutator(
        "list-of-tensors",
        "refused",
        "A list of weights without names.",
        saved(lambda a, b: list(a.values())),
        says=("list",),
    ),
    CheckpointMutator(
        "single-tensor",
        "refused",
        "Features that somebody saved, not weights.",
        saved(lambda a, b: torch.zeros(8, 192)),
        says=("tensor",),
    ),
    CheckpointMutator(
        "empty-dictionary",
        "refused",
        "A process other than the first one saved it.",
        saved(lambda a, b: {}),
        says=("empty", "no weight", "nothing", "holds no"),
    ),
    CheckpointMutator(
        "beit",
        "refused",
        "BEIT has biases and scales for which a plain ViT has no place.",
        saved(lambda a, b: {"model": _beit(a)}),
        says=("beit", "relative_position_bias_table"),
    ),
    CheckpointMutator(
        "registers",
        "refused",
        "DINOv2's registers have no place in a plain ViT.",
        saved(lambda a, b: {**a, "register_tokens": torch.randn(1, 4, 192)}),
        says=("register",),
    ),
    CheckpointMutator(
        "dinov2",
        "refused",
        "DINOv2's LayerScale has no place in a plain ViT.",
        saved(lambda a, b: {**a, **{f"blocks.{block}.ls1.gamma": torch.ones(192) for block in range(12)}}),
        says=("layerscale",),
    ),
    CheckpointMutator(
        "resnet",
        "refused",
        "A ResNet is neither a ViT nor a Swin.",
        saved(lambda a, b: {"state_dict": _resnet(a)}),
        says=("resnet", "conv1", "not a vit", "neither"),
    ),
)

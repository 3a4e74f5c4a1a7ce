"""Parameter groups, per-tensor clipping and the frozen last layer of DINO's recipe."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS, OPTIMIZERS
from torch import Tensor, nn

from ..runtime.devices import autocast, computes_bfloat16, emulates_bfloat16
from ..runtime.errors import InvalidValue, UserError

FUSED = ("AdamW", "Adam", "SGD")  # of PyTorch's, those that can step over all tensors in one call


class _DINOSteps:
    """What both wrappers add: per-tensor clipping, parameters kept still, no step on gradients that are not finite.

    Attributes:
        frozen: Parameters that the next step leaves as they are.
        grad_norm: Norm of all gradients of the last step, before clipping.
        skipped: Whether the last step was left out because ``grad_norm`` was not finite. Under DDP every process
            holds the same gradients, so all agree without asking.
    """

    optimizer: torch.optim.Optimizer

    def __init__(self, *args: Any, clip_grad_per_tensor: float | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if clip_grad_per_tensor is not None and not clip_grad_per_tensor > 0:
            raise InvalidValue(
                f"clip_grad_per_tensor must be positive, or None for no clipping, got {clip_grad_per_tensor}"
            )
        self.clip_grad_per_tensor = clip_grad_per_tensor
        self.frozen: list[nn.Parameter] = []
        self.grad_norm = float("nan")
        self.skipped = False

    def before_optimizer_step(self) -> None:
        """Gradients are whole and unscaled here."""
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        gradients: list[Tensor] = [p.grad for p in parameters if p.grad is not None]
        norms = norms_of(gradients)
        self.grad_norm = math.hypot(*norms)
        self.skipped = not math.isfinite(self.grad_norm)
        if self.clip_grad_per_tensor is not None and not self.skipped:
            clip_each_tensor(gradients, norms, self.clip_grad_per_tensor)
        for parameter in self.frozen:
            parameter.grad = None


@OPTIM_WRAPPERS.register_module()
class MSTOptimWrapper(_DINOSteps, OptimWrapper):
    """MMEngine's wrapper with ``clip_grad_per_tensor`` [code: DINO]; ``clip_grad`` stays the global norm.

    Args:
        dtype: Of the forward pass, see :func:`forward_precision`. bfloat16 runs in autocast and needs no loss scaling;
            float16 does: :class:`MSTAmpOptimWrapper`.
    """

    def __init__(self, *args: Any, dtype: str | None = "auto", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        device = self.optimizer.param_groups[0]["params"][0].device
        self.dtype, why = forward_precision(dtype, device)
        print_log(f"The forward pass runs in {self.dtype}: {why}.", logger="current")

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Gradient synchronisation as MMEngine's, forward pass in autocast where ``dtype`` asks for it."""
        with super().optim_context(model), autocast(next(model.parameters()).device, self.dtype):
            yield

    def step(self, **kwargs: Any) -> None:
        """Clip, keep the frozen parameters still, step unless a gradient is not finite."""
        self.before_optimizer_step()
        if self.clip_grad_kwargs:
            self._clip_grad()
        if not self.skipped:
            self.optimizer.step(**kwargs)


@OPTIM_WRAPPERS.register_module()
class MSTAmpOptimWrapper(_DINOSteps, AmpOptimWrapper):
    """The same under automatic mixed precision with loss scaling, on a GPU.

    Args:
        dtype: ``float16``, for which ``auto`` and None stand too, or ``bfloat16``.
    """

    def __init__(self, *args: Any, dtype: str | None = "auto", **kwargs: Any) -> None:
        if not torch.cuda.is_available():
            raise UserError(
                "optim_wrapper.type=MSTAmpOptimWrapper needs a GPU and none is visible. On the CPU take "
                "MSTOptimWrapper, with optim_wrapper.dtype None or 'bfloat16'."
            )
        dtype = "float16" if dtype in (None, "auto") else dtype
        if dtype not in ("float16", "bfloat16"):
            raise UserError(
                f"optim_wrapper.dtype is '{dtype}'; MSTAmpOptimWrapper, which --amp chooses, takes 'auto' (float16), "
                "'float16' or 'bfloat16'. For float32 leave --amp out."
            )
        super().__init__(*args, dtype=dtype, **kwargs)
        print_log(
            f"The forward pass runs in {dtype} with loss scaling: MSTAmpOptimWrapper, or --amp, asks for it.",
            logger="current",
        )

    def step(self, **kwargs: Any) -> None:
        """Unscale, clip, keep the frozen parameters still, step unless the gradients overflowed."""
        self.loss_scaler.unscale_(self.optimizer)
        self.before_optimizer_step()
        if self.clip_grad_kwargs:
            self._clip_grad()
        self.loss_scaler.step(self.optimizer, **kwargs)
        self.loss_scaler.update(self._scale_update_param)


def forward_precision(dtype: str | None, device: torch.device) -> tuple[str, str]:
    """The type of a forward pass that needs no loss scaling, and why.

    Args:
        dtype: ``bfloat16``; ``float32`` or None; ``auto``: bfloat16 on a GPU that computes in it, else float32.
        device: Where the model is.
    """
    if dtype == "bfloat16" and emulates_bfloat16(device):
        return (
            dtype,
            "optim_wrapper.dtype is bfloat16, which this CPU emulates: float32 is many times as fast",
        )
    if dtype in (None, "float32", "bfloat16"):
        return dtype or "float32", f"optim_wrapper.dtype is {dtype}"
    if dtype != "auto":
        raise UserError(
            f"optim_wrapper.dtype is '{dtype}'; MSTOptimWrapper takes 'auto', 'float32' or 'bfloat16'. For float16 "
            "set optim_wrapper.type=MSTAmpOptimWrapper, or give --amp."
        )
    if device.type != "cuda":
        return "float32", f"optim_wrapper.dtype is auto, and the model is on the {device.type}"
    if computes_bfloat16(device):
        return "bfloat16", "optim_wrapper.dtype is auto, and this GPU computes in it"
    return "float32", "optim_wrapper.dtype is auto, and this GPU has no bfloat16; --amp gives float16"


def norms_of(tensors: list[Tensor]) -> list[float]:
    """The L2 norm of each, on the host: the one time in a step that the device is waited for."""
    return torch.stack(torch._foreach_norm(tensors)).tolist() if tensors else []


def clip_each_tensor(gradients: list[Tensor], norms: list[float], max_norm: float) -> None:
    """Scale every gradient whose own L2 norm exceeds ``max_norm`` down to it, in place [code: DINO]."""
    factors = [max_norm / (norm + 1e-6) for norm in norms]
    large = [place for place, factor in enumerate(factors) if factor < 1]
    if large:
        torch._foreach_mul_([gradients[place] for place in large], [factors[place] for place in large])


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class MSTOptimWrapperConstructor:
    """Two parameter groups: weights with decay; biases and 1-D parameters without [code: DINO]."""

    def __init__(
        self, optim_wrapper_cfg: dict[str, Any], paramwise_cfg: dict[str, Any] | None = None
    ) -> None:
        if paramwise_cfg:
            raise InvalidValue(f"MSTOptimWrapperConstructor takes no paramwise_cfg, got {paramwise_cfg}")
        self.wrapper_cfg = {key: value for key, value in optim_wrapper_cfg.items() if key != "constructor"}
        self.optimizer_cfg = dict(self.wrapper_cfg.pop("optimizer"))
        if self.optimizer_cfg.get("type") in FUSED:
            self.optimizer_cfg.setdefault("fused", True)

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """The optimizer wrapper of a model, maybe wrapped for distribution."""
        model = getattr(model, "module", model)
        decayed, plain = split_parameters(model)
        groups = [
            {"params": decayed, "decays": True},
            {"params": plain, "weight_decay": 0.0, "decays": False},
        ]
        optimizer = OPTIMIZERS.build({**self.optimizer_cfg, "params": groups})
        wrapper_cfg = {"type": "MSTOptimWrapper", **self.wrapper_cfg}
        return OPTIM_WRAPPERS.build(wrapper_cfg, default_args={"optimizer": optimizer})


def split_parameters(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Trainable parameters with and without weight decay."""
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (plain if name.endswith(".bias") or parameter.ndim == 1 else decayed).append(parameter)
    return decayed, plain

"""Which type a pretraining computes in: by default, by the config, by --amp, on old and new GPUs."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from torch import nn

from mst_pretrain.runtime.errors import UserError
from mst_pretrain.training import launch, optim
from mst_pretrain.training.optim import MSTAmpOptimWrapper, MSTOptimWrapper, MSTOptimWrapperConstructor
from mst_pretrain.training.runner import MSTRunner, build_runner

GPU = torch.device("cuda", 0)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Pretend that there is a GPU of a kind."""

    def pretend(capability: tuple[int, int], supported: bool = True, hip: str | None = None) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *args, **kwargs: supported)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *args: capability)
        monkeypatch.setattr(torch.version, "hip", hip)
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")  # MMEngine's logger asks for its number

    return pretend


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the wrappers log."""
    lines: list[str] = []
    monkeypatch.setattr(optim, "print_log", lambda text, logger: lines.append(text), raising=False)
    return lines


def wrapper_of(cfg: Any) -> Any:
    return MSTOptimWrapperConstructor({"type": "MSTOptimWrapper", "optimizer": {"type": "AdamW"}, **cfg})(
        nn.Linear(2, 2)
    )


@pytest.mark.parametrize(
    ("capability", "supported", "hip", "expected"),
    [
        ((9, 0), True, None, "bfloat16"),
        ((8, 0), True, None, "bfloat16"),
        ((7, 5), True, None, "float32"),  # PyTorch emulates it there
        ((7, 0), False, None, "float32"),
        ((9, 0), True, "6.2", "bfloat16"),
        ((0, 0), True, "6.2", "bfloat16"),
    ],
)
def test_auto_takes_bfloat16_where_the_gpu_computes_in_it(
    gpu: Callable[..., None], capability: tuple[int, int], supported: bool, hip: str | None, expected: str
) -> None:
    """A full run would take three times as long on a new GPU, or an emulated type be used on an old one."""
    gpu(capability, supported, hip)
    dtype, why = optim.forward_precision("auto", GPU)
    assert dtype == expected and "auto" in why and ("--amp" in why) == (expected == "float32")
    assert optim.forward_precision("float32", GPU)[0] == optim.forward_precision(None, GPU)[0] == "float32"
    assert optim.forward_precision("bfloat16", GPU)[0] == "bfloat16"
    assert optim.forward_precision("auto", torch.device("cpu"))[0] == "float32"


@pytest.mark.parametrize(
    ("given", "computed", "said_so"),
    [
        (
            {},
            torch.float32,
            "The forward pass runs in float32: optim_wrapper.dtype is auto, and the model is on the cpu.",
        ),
        (
            {"dtype": "auto"},
            torch.float32,
            "The forward pass runs in float32: optim_wrapper.dtype is auto, and the",
        ),
        (
            {"dtype": "float32"},
            torch.float32,
            "The forward pass runs in float32: optim_wrapper.dtype is float32.",
        ),
        ({"dtype": None}, torch.float32, "The forward pass runs in float32: optim_wrapper.dtype is None."),
        (
            {"dtype": "bfloat16"},
            torch.bfloat16,
            "The forward pass runs in bfloat16: optim_wrapper.dtype is bfloat16",
        ),
    ],
)
def test_the_cpu_computes_in_what_the_log_says(
    said: list[str], given: dict[str, Any], computed: torch.dtype, said_so: str
) -> None:
    """A CPU run would become slower or less exact by a change of the default, or the log name another type."""
    model = nn.Linear(2, 2)
    wrapper: MSTOptimWrapper = wrapper_of(given)
    with wrapper.optim_context(model):
        assert model(torch.ones(1, 2)).dtype == computed
    assert len(said) == 1 and said[0].startswith(said_so)


@pytest.mark.parametrize("supported", [True, False])
def test_a_cpu_without_bfloat16_says_so(monkeypatch: pytest.MonkeyPatch, supported: bool) -> None:
    """Pretraining on such a CPU would be many times slower without a message."""
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: supported)
    _, why = optim.forward_precision("bfloat16", torch.device("cpu"))
    assert ("this CPU emulates" in why) != supported
    assert "emulates" not in optim.forward_precision("bfloat16", GPU)[1]


def test_auto_reaches_the_autocast_of_a_gpu(
    gpu: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log would say bfloat16, and the forward pass run in float32."""
    gpu((8, 0))
    monkeypatch.setattr(optim, "forward_precision", lambda dtype, device: ("bfloat16", "a GPU"))
    model = nn.Linear(2, 2)
    with wrapper_of({}).optim_context(model):
        assert model(torch.ones(1, 2)).dtype == torch.bfloat16


def test_the_config_asks_for_auto_and_trains(toy_config: Callable[..., Config], said: list[str]) -> None:
    """The default of the recipes would be another than the wrapper's."""
    cfg = toy_config(train_cfg__max_iters=1)
    assert cfg.optim_wrapper.dtype == "auto"
    build_runner(cfg).train()
    assert len(said) == 1 and "float32" in said[0]


@pytest.mark.parametrize("on_gpu", [False, True])
def test_mixed_precision_of_a_fine_tuning(
    on_gpu: bool, gpu: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A config in mixed precision would not run on a CPU, lose its loss scale on a GPU, or not tell which it is."""
    made: list[dict[str, Any]] = []
    monkeypatch.setattr(AmpOptimWrapper, "__init__", lambda self, **kwargs: made.append(kwargs))
    if on_gpu:
        gpu((8, 0))
    runner, lines = MSTRunner.__new__(MSTRunner), []
    runner.model, runner.logger = nn.Linear(2, 1), argparse.Namespace(info=lines.append)
    given = {"type": "AmpOptimWrapper", "loss_scale": 512.0, "optimizer": {"type": "SGD", "lr": 0.5}}
    wrapper = runner.build_optim_wrapper(given)
    assert type(wrapper) is (AmpOptimWrapper if on_gpu else OptimWrapper)
    assert [kwargs["loss_scale"] for kwargs in made] == [512.0] * on_gpu and given["loss_scale"] == 512.0
    assert len(lines) == 1 and f"runs in {'float16' if on_gpu else 'float32'}" in lines[0]
    if not on_gpu:
        assert wrapper.optimizer.param_groups[0]["lr"] == 0.5


def test_amp_is_float16_as_before(
    toy_config: Callable[..., Config],
    gpu: Callable[..., None],
    said: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """--amp would fail on the config's "auto", or silently compute in bfloat16."""
    gpu((8, 0))
    made: list[dict[str, Any]] = []
    monkeypatch.setattr(AmpOptimWrapper, "__init__", lambda self, *args, **kwargs: made.append(kwargs))
    cfg = toy_config()
    asked = argparse.Namespace(config=str(cfg.filename), work_dir="x", launcher="none", amp=True)
    launch.prepare(cfg, asked)
    for dtype in ("auto", None, "float16"):
        wrapper = wrapper_of({**cfg.optim_wrapper, "dtype": dtype, "constructor": None})
        assert isinstance(wrapper, MSTAmpOptimWrapper)
    wrapper_of({"type": "MSTAmpOptimWrapper", "dtype": "bfloat16"})
    assert [kwargs["dtype"] for kwargs in made] == ["float16", "float16", "float16", "bfloat16"]
    assert [line.partition(" with loss scaling")[0] for line in said] == [
        *3 * ["The forward pass runs in float16"],
        "The forward pass runs in bfloat16",
    ]
    with pytest.raises(UserError, match=r"dtype is 'float32'.*leave --amp out"):
        wrapper_of({"type": "MSTAmpOptimWrapper", "dtype": "float32"})


def test_a_mistyped_precision_is_refused() -> None:
    """A run would train in float32 although another type was meant."""
    with pytest.raises(UserError, match=r"dtype is 'bf16'.*'auto', 'float32' or 'bfloat16'"):
        wrapper_of({"dtype": "bf16"})

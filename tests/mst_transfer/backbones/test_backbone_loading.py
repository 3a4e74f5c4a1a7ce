"""Checkpoints into backbones: all of it or an error. Backbones from the registries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from mmengine.model import BaseModule
from mmengine.registry import MODELS, DefaultScope
from torch import nn

import mst_transfer  # noqa: F401, registers
from mst_pretrain.checkpoints import convert_checkpoint, read_backbone
from mst_pretrain.checkpoints.storage import save_atomic, save_safetensors
from mst_pretrain.method.backbones import forward_trunk
from mst_pretrain.method.mst import MST
from mst_pretrain.runtime.errors import UserError
from mst_transfer.backbones import MSTSwin, MSTVisionTransformer, base
from tests.mst_pretrain.checkpoints.conftest import SMALL, written_for

SMALL_VIT: dict[str, Any] = {"embed_dim": 48, "depth": 4, "num_heads": 3, "img_size": 64}
SMALL_SWIN: dict[str, Any] = {"embed_dim": 24, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 3, 4)}


class Detector(BaseModule):
    """What calls a backbone's init_weights in mmdet and mmseg."""

    def __init__(self, backbone: Any) -> None:
        super().__init__()
        self.backbone = backbone


def small_vit(img_size: int = 64, **options: Any) -> MSTVisionTransformer:
    shape = {**SMALL_VIT, "img_size": img_size}
    return MSTVisionTransformer(model=None, model_args=shape, **{"out_indices": (0, 1, 2, 3), **options})


def small_swin(**options: Any) -> MSTSwin:
    return MSTSwin(model_args=SMALL_SWIN, **options)


def pretrained(path: Path, prefix: str = "teacher.backbone.", **options: Any) -> dict[str, Any]:
    return {"type": "Pretrained", "checkpoint": str(path), "prefix": prefix, **options}


@pytest.fixture
def trunks(tmp_path: Path) -> dict[str, tuple[Path, Any]]:
    """Checkpoints as pretraining leaves them, and the timm models in them; the student holds other values."""
    made = {}
    for name, model in {
        "vit": timm.models.VisionTransformer(num_classes=0, **SMALL_VIT),
        "swin": timm.create_model("swin_tiny_patch4_window7_224", num_classes=0, **SMALL_SWIN),
    }.items():
        for parameter in model.parameters():
            nn.init.normal_(parameter, 0.3, 0.5)
        state = {f"teacher.backbone.{key}": value for key, value in model.state_dict().items()}
        state |= {f"student.backbone.{key}": value * 0 for key, value in model.state_dict().items()}
        torch.save(
            {"state_dict": state | {"teacher.head.0.weight": torch.ones(2, 2)}}, tmp_path / f"{name}.pth"
        )
        made[name] = (tmp_path / f"{name}.pth", model.eval())
    return made


@pytest.mark.parametrize(("name", "build"), [("vit", small_vit), ("swin", small_swin)])
def test_loads_the_trunk_and_says_so(
    name: str, build: Any, trunks: dict[str, tuple[Path, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fine-tuning would start from random or the student's weights, and say nothing."""
    said: list[str] = []
    monkeypatch.setattr(base, "print_log", lambda message, **_: said.append(message))
    path, model = trunks[name]
    backbone = build(init_cfg=pretrained(path))
    parent = Detector(backbone)
    parent.init_weights()
    source = model.state_dict()
    for key, value in backbone.trunk.state_dict().items():
        assert torch.equal(value, source[key]), key
    assert said == [f"{type(backbone).__name__} from {path}: all {len(backbone.trunk.state_dict())} keys matched "
                    "(not used: norm.bias, norm.weight)"]  # fmt: skip
    with torch.no_grad():
        backbone.trunk.patch_embed.proj.bias.zero_()
    backbone.init_weights()
    assert backbone.trunk.patch_embed.proj.bias.abs().sum() == 0  # once


def test_features_of_the_checkpoint(trunks: dict[str, tuple[Path, Any]]) -> None:
    """Every key would match and the features differ: token order, [CLS] kept as a patch, norm left out."""
    path, model = trunks["vit"]
    backbone = small_vit(pyramid=False, init_cfg=pretrained(path)).eval()
    backbone.init_weights()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = model.forward_features(images)[:, 1:].transpose(1, 2).reshape(2, 48, 4, 4)
        torch.testing.assert_close(backbone(images)[-1], expected)


@pytest.mark.parametrize(
    ("build", "name", "shape", "size"),
    [
        (small_vit, "vit_tiny_patch16_224", SMALL_VIT, (64, 64)),  # elsewhere the rules of resizing differ
        (small_swin, "swin_tiny_patch4_window7_224", SMALL_SWIN, (224, 448)),
    ],
)
def test_features_are_the_teachers(
    build: Any, name: str, shape: dict[str, Any], size: tuple[int, int], tmp_path: Path
) -> None:
    """What pretraining leaves under `teacher.backbone.` would give other features here than in pretraining."""
    torch.manual_seed(0)
    method = MST({"name": name, **shape}, head={"prototypes": 8, "hidden_dim": 8, "bottleneck_dim": 4})
    for parameter in method.parameters():
        parameter.data = torch.randn_like(parameter) / parameter[0].numel() ** 0.5
    save_atomic({"state_dict": method.state_dict()}, tmp_path / "latest.pth")
    options = {"pyramid": False} if build is small_vit else {}
    backbone = build(init_cfg=pretrained(tmp_path / "latest.pth"), **options).eval()
    backbone.init_weights()
    teacher, images = method.teacher.backbone.eval(), torch.randn(1, 3, *size)
    with torch.no_grad():
        if build is small_vit:
            torch.testing.assert_close(backbone(images)[-1], forward_trunk(teacher, images).grid)
            return
        # maps of whole windows: the two rules of shifting differ in the last stage alone
        x = teacher.patch_embed(images)
        for stage, y in zip(teacher.layers[:3], backbone(images)[:3], strict=True):
            x = stage(x)
            expected = nn.functional.layer_norm(x, x.shape[-1:]).permute(0, 3, 1, 2)
            torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-4)


def test_prefix_chooses_the_weights(trunks: dict[str, tuple[Path, Any]], tmp_path: Path) -> None:
    """The student's weights, or an exported file of plain timm keys, could not be fine-tuned."""
    path, model = trunks["vit"]
    student = small_vit(init_cfg=pretrained(path, "student.backbone."))
    student.init_weights()
    assert all(not weight.any() for weight in student.trunk.state_dict().values())
    save_safetensors(model.state_dict(), tmp_path / "timm.safetensors")
    exported = small_vit(init_cfg={"type": "Pretrained", "checkpoint": str(tmp_path / "timm.safetensors")})
    exported.init_weights()
    assert torch.equal(exported.trunk.blocks[3].mlp.fc2.weight, model.blocks[3].mlp.fc2.weight)


def test_cut_trunk_and_resized_embedding(trunks: dict[str, tuple[Path, Any]]) -> None:
    """An early last tap, or another native size, would make a good checkpoint unloadable."""
    path, model = trunks["vit"]
    backbone = small_vit(pyramid=False, out_indices=(1,), img_size=96, init_cfg=pretrained(path))
    backbone.init_weights()
    assert backbone.trunk.pos_embed.shape == (1, 37, 48) and len(backbone.trunk.blocks) == 2
    assert torch.equal(backbone.trunk.pos_embed[:, 0], model.pos_embed[:, 0])


def test_positions_are_resized_as_mmseg_does(trunks: dict[str, tuple[Path, Any]]) -> None:
    """A larger grid would start from timm's antialiased positions, which no mmseg model of these weights has."""
    path, timm_model = trunks["vit"]
    backbone = small_vit(48, init_cfg=pretrained(path))
    backbone.init_weights()
    old = timm_model.pos_embed.detach()
    side = int((old.shape[1] - 1) ** 0.5)
    grid = old[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    resized = torch.nn.functional.interpolate(grid, backbone.trunk.patch_embed.grid_size, mode="bicubic")
    expected = torch.cat([old[:, :1], resized.flatten(2).transpose(1, 2)], 1)
    torch.testing.assert_close(backbone.trunk.pos_embed.detach(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("build", [small_vit, small_swin])
def test_without_checkpoint_timms_values_stay(build: Any) -> None:
    """Random initialisation would be replaced by the zeros or ones of a framework's default."""
    torch.manual_seed(0)
    backbone = build()
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    parent = Detector(backbone)
    parent.init_weights()
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())


@pytest.mark.parametrize(
    ("format", "architecture", "library", "prefix"),
    [
        ("dino", "vit-tiny-test", None, None),
        ("dino", "vit-tiny-test", None, "student.module.backbone."),
        ("dino", "vit-tiny-test", "huggingface", None),
        ("mae", "vit-tiny-test", None, None),
        ("moby", "swin-tiny-test", None, None),
        ("moby", "swin-tiny-test", None, "encoder_k."),
        ("esvit", "swin-tiny-test", None, None),
        ("moby", "swin-tiny-test", "mmdet", None),
    ],
)
def test_anybodys_file_is_loaded_as_its_conversion(
    format: str, architecture: str, library: str | None, prefix: str | None, tmp_path: Path
) -> None:
    """A published file would have to be converted first, or fine-tuning start from another of its networks."""
    given, source = SMALL[architecture], written_for(library, format, architecture, tmp_path)
    converted = convert_checkpoint(source, tmp_path / "timm.safetensors", prefix=prefix, **given)
    shape = converted.architecture
    for path, where in ((source, {"prefix": prefix} if prefix else {}), (tmp_path / "timm.safetensors", {})):
        init_cfg = {"type": "Pretrained", "checkpoint": str(path), **where}
        kind: Any = MSTSwin if shape.is_swin else MSTVisionTransformer
        options = {} if shape.is_swin else {"out_indices": (1,), "pyramid": False}
        backbone = kind(shape.name, shape.arguments, init_cfg=init_cfg, **options)
        backbone.init_weights()
        state = backbone.trunk.state_dict()
        assert all(torch.equal(value, converted.state[key]) for key, value in state.items())


def test_a_fine_tuned_backbone_says_which_model_it_is(tmp_path: Path) -> None:
    """Evaluating or converting what was fine-tuned, of an unusual size, would ask for --model and --model-args."""
    backbone = small_vit(pyramid=False, drop_path_rate=0.3)
    state = {f"backbone.{key}": value for key, value in backbone.state_dict().items()}
    saved_model = {"state_dict": state | {"neck.weight": torch.ones(1)}, "meta": backbone.trunk.architecture}
    torch.save(saved_model, tmp_path / "w.pth")
    found = read_backbone(tmp_path / "w.pth")
    assert (found.reading.prefix, found.architecture.arguments) == ("backbone.trunk.", SMALL_VIT)
    assert all(torch.equal(value, found.state[key]) for key, value in backbone.trunk.state_dict().items())


def test_a_missing_weight_is_an_error(trunks: dict[str, tuple[Path, Any]]) -> None:
    """A checkpoint lacking one tensor would load in part and train on."""
    path, _ = trunks["swin"]
    checkpoint = torch.load(path, weights_only=True)
    lost = "layers.2.blocks.1.attn.relative_position_bias_table"
    del checkpoint["state_dict"][f"teacher.backbone.{lost}"]
    torch.save(checkpoint, path)
    backbone = small_swin(init_cfg=pretrained(path))
    before = backbone.trunk.patch_embed.proj.weight.clone()
    with pytest.raises(UserError, match=f"{path.name} does not fit.*1 weights missing.*{lost}"):
        backbone.init_weights()
    assert torch.equal(backbone.trunk.patch_embed.proj.weight, before)


def test_another_architecture_is_an_error(trunks: dict[str, tuple[Path, Any]]) -> None:
    """A ViT's checkpoint would leave a Swin at random values."""
    with pytest.raises(UserError, match="is a ViT, but this backbone is a Swin"):
        small_swin(init_cfg=pretrained(trunks["vit"][0])).init_weights()


def saved(path: Path, state: dict[str, torch.Tensor]) -> dict[str, Any]:
    """The init_cfg of weights with timm's names."""
    torch.save({"state_dict": {f"teacher.backbone.{key}": value for key, value in state.items()}}, path)
    return pretrained(path)


@pytest.mark.parametrize(
    ("kind", "name", "like"),
    [
        ("vit", "blocks.0.ls1.gamma", "norm.weight"),  # LayerScale
        ("vit", "blocks.3.attn.rel_pos_h", "norm.weight"),  # ViTDet
        ("vit", "reg_token", "cls_token"),
        ("vit", "norm_pre.weight", "norm.weight"),
        ("vit", "blocks.4.norm1.weight", "norm.weight"),  # a fifth block
        ("swin", "layers.0.blocks.1.attn.logit_scale", "norm.weight"),  # version 2
        ("swin", "absolute_pos_embed", "norm.weight"),
        ("swin", "layers.2.blocks.2.norm1.weight", "norm.weight"),
    ],
)
def test_a_weight_without_a_place_is_an_error(
    kind: str, name: str, like: str, trunks: dict[str, tuple[Path, Any]], tmp_path: Path
) -> None:
    """The weights of another architecture would be fine-tuned in this one, whose features are not theirs."""
    state = trunks[kind][1].state_dict()
    init_cfg = saved(tmp_path / "w.pth", {**state, name: torch.ones_like(state[like])})
    build: Any = small_vit if kind == "vit" else small_swin
    with pytest.raises(
        UserError,
        match=rf"w\.pth (does not fit .*1 weights that it has no place for .*{name}.*another architecture|"
        r"holds a Swin V2, another network than a Swin)",
    ):
        build(init_cfg=init_cfg).init_weights()


@pytest.mark.parametrize("depth", [4, 5])
def test_a_cut_trunk_knows_its_depth(depth: int, trunks: dict[str, tuple[Path, Any]], tmp_path: Path) -> None:
    """Early taps would refuse a whole file's later blocks, or take those of a deeper model."""
    state = timm.models.VisionTransformer(num_classes=3, **{**SMALL_VIT, "depth": depth}).state_dict()
    backbone = small_vit(pyramid=False, out_indices=(1,), init_cfg=saved(tmp_path / "w.pth", state))
    if depth == 4:
        backbone.init_weights()
        assert torch.equal(backbone.trunk.blocks[1].norm1.weight, state["blocks.1.norm1.weight"])
    else:
        with pytest.raises(UserError, match=r"12 weights that it has no place for .*blocks\.4\."):
            backbone.init_weights()


def test_a_cut_swin_lets_go_of_the_later_stages(trunks: dict[str, tuple[Path, Any]]) -> None:
    """Stages that are not returned would make a whole file another architecture's."""
    path, model = trunks["swin"]
    backbone = small_swin(out_indices=(0, 2), init_cfg=pretrained(path))
    backbone.init_weights()
    weight = backbone.trunk.layers[2].downsample.reduction.weight
    assert torch.equal(weight, model.layers[2].downsample.reduction.weight)


def test_a_classifier_and_an_unused_norm_are_let_go(
    trunks: dict[str, tuple[Path, Any]], tmp_path: Path
) -> None:
    """timm's published files, or those of a model that pools in another way, would not load."""
    state = trunks["vit"][1].state_dict()
    beside = {"head.weight": torch.ones(3, 48), "fc_norm.weight": torch.ones(48)}
    pooled = {**SMALL_VIT, "global_pool": "avg"}  # has fc_norm and no norm
    backbone = MSTVisionTransformer(
        None, pooled, out_indices=(0, 1, 2, 3), init_cfg=saved(tmp_path / "w.pth", {**state, **beside})
    )
    backbone.init_weights()
    assert torch.equal(backbone.trunk.cls_token, state["cls_token"])


@pytest.mark.parametrize("where", ["init_cfg", "init_from"])
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda weight: weight.index_fill(0, torch.tensor(1), float("nan")), "not finite in 1 weights"),
        (lambda weight: weight.index_fill(0, torch.tensor(1), float("-inf")), "not finite in 1 weights"),
        (lambda weight: weight.to(torch.int8), "of type torch.int8, torch.strided"),
    ],
    ids=["nan", "inf", "integers"],
)
def test_broken_values_are_an_error(
    where: str, spoil: Any, message: str, trunks: dict[str, tuple[Path, Any]], tmp_path: Path
) -> None:
    """The first loss would be NaN after hours of queueing, or quantized weights be taken for weights."""
    state, name = trunks["vit"][1].state_dict(), "blocks.2.mlp.fc1.weight"
    init_cfg = saved(tmp_path / "w.pth", {**state, name: spoil(state[name])})
    backbone = small_vit(init_cfg=init_cfg)
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    with pytest.raises(UserError, match=rf"w\.pth has .*{message} \(first: {name}.*Nothing was loaded"):
        if where == "init_cfg":
            backbone.init_weights()
        else:
            shape = {"name": "vit_tiny_patch16_224", **SMALL_VIT}
            head = {"prototypes": 8, "hidden_dim": 8, "bottleneck_dim": 4}
            MST(shape, head=head, init_from=str(tmp_path / "w.pth"))
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())


def test_half_precision_loads(trunks: dict[str, tuple[Path, Any]], tmp_path: Path) -> None:
    """A file of half or 8-bit floats, all of them finite, would be refused or end in a traceback."""
    state = trunks["vit"][1].state_dict()
    for dtype in (torch.float16, torch.bfloat16, torch.float8_e4m3fn):
        small = {key: value.to(dtype) for key, value in state.items()}
        backbone = small_vit(init_cfg=saved(tmp_path / "w.pth", small))
        backbone.init_weights()
        assert torch.equal(backbone.trunk.cls_token, small["cls_token"].float())


@pytest.mark.parametrize(
    ("path", "remedy"),
    [
        ("work_dirs/mst_x/latest.pth", "bash tools/pretrain.sh configs/pretrain/mst_x.py"),
        ("elsewhere/mine.pth", "Give init_cfg.checkpoint an existing"),
    ],
)
def test_a_missing_file_names_path_and_command(tmp_path: Path, path: str, remedy: str) -> None:
    """A user who has not pretrained would not learn which file is expected and what makes it."""
    with pytest.raises(UserError) as caught:
        small_vit(init_cfg=pretrained(tmp_path / path)).init_weights()
    assert str(tmp_path / path) in str(caught.value) and remedy in str(caught.value)


@pytest.mark.parametrize(
    "init_cfg", [{"type": "Xavier", "checkpoint": "x.pth"}, {"type": "Pretrained"}, [{"type": "Pretrained"}]]
)
def test_other_init_cfg_is_refused(init_cfg: Any) -> None:
    """An initialisation that is not carried out would be ignored."""
    with pytest.raises(UserError, match="init_cfg must be None or"):
        small_vit(init_cfg=init_cfg).init_weights()


@pytest.mark.parametrize("scope", ["mmdet", "mmseg", "mmengine"])
def test_built_from_every_scope(scope: str) -> None:
    """A detection or segmentation config would not find the backbones."""
    from mmdet.registry import MODELS as DETECTION
    from mmseg.registry import MODELS as SEGMENTATION

    registry = {"mmdet": DETECTION, "mmseg": SEGMENTATION, "mmengine": MODELS}[scope]
    small = {
        "type": "MSTVisionTransformer",
        "model": None,
        "model_args": SMALL_VIT,
        "out_indices": (0, 1, 2, 3),
    }
    with DefaultScope.overwrite_default_scope(scope):
        assert isinstance(registry.build(small), MSTVisionTransformer)
        assert isinstance(registry.build({"type": "MSTSwin", "model_args": SMALL_SWIN}), MSTSwin)

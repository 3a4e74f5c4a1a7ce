"""Test-time augmentation: views, merged boxes and masks."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import MODELS
from mmengine.structures import InstanceData
from PIL import Image

from mst_pretrain.runtime.config import import_custom_modules, load_config
from mst_pretrain.runtime.errors import UserError
from mst_transfer.evaluation.tta import MSTDetTTAModel, _to_image, _to_view, use_tta, wrap

CONFIGS = Path(__file__).parents[3] / "configs"
HEIGHT, WIDTH = 96, 128


def detector(cascade: bool = False) -> tuple[Config, Any]:
    """The quickstart's Mask R-CNN, or a cascade of three such heads, with weights that are all different."""
    from mmdet.utils import register_all_modules

    register_all_modules(init_default_scope=True)
    cfg = load_config(CONFIGS / "quickstart/mask_rcnn.py")
    import_custom_modules(cfg)
    cfg.model.backbone.init_cfg = None
    if cascade:
        head = cfg.model.roi_head
        head.type, head.num_stages, head.stage_loss_weights = "CascadeRoIHead", 3, [1, 0.5, 0.25]
        head.bbox_head, head.mask_head = [head.bbox_head] * 3, [head.mask_head] * 3
        cfg.model.train_cfg.rcnn = [cfg.model.train_cfg.rcnn] * 3
    torch.manual_seed(0)
    model = MODELS.build(cfg.model).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            scale = 0.15 / max(1, parameter[0].numel()) ** 0.5 if parameter.ndim > 1 else 0.02
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    return cfg, model


def photo(path: Path, mirrored: bool = False) -> Path:
    pixels = np.random.default_rng(0).integers(0, 255, (HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8)
    pixels = np.kron(pixels, np.ones((8, 8, 1), np.uint8))
    Image.fromarray(pixels[:, ::-1] if mirrored else pixels).save(path)
    return path


def predicted(model: Any, steps: list[Any], image: Path) -> Any:
    sample = Compose(steps)({"img_path": str(image), "img_id": 0})
    return model.test_step(pseudo_collate([sample]))[0].pred_instances


def steps_of(cfg: Config) -> list[Any]:
    return [step for step in cfg.test_dataloader.dataset.pipeline if step.type != "LoadAnnotations"]


@pytest.mark.parametrize("cascade", [False, True])
def test_one_view_changes_nothing(tmp_path: Path, cascade: bool) -> None:
    """Boxes, scores or masks would be rescaled, cut or pasted otherwise than by the plain model."""
    cfg, model = detector(cascade)
    steps, image = steps_of(cfg), photo(tmp_path / "a.png")
    plain = predicted(model, steps, image)
    assert len(plain) >= 5 and plain.masks.flatten(1).any(1).float().mean() > 0.5
    views = [steps[0], dict(type="TestTimeAug", transforms=[[step] for step in steps[1:]])]
    merged = predicted(wrap(model, dict(type="MSTDetTTAModel")), views, image)
    assert len(merged) == len(plain)
    assert torch.allclose(merged.bboxes, plain.bboxes, atol=1e-3)
    assert torch.allclose(merged.scores, plain.scores, atol=1e-5)
    assert (merged.labels == plain.labels).all()
    assert (merged.masks == plain.masks).float().mean() > 0.9999


def test_a_mirrored_photo_gives_mirrored_predictions(tmp_path: Path) -> None:
    """The flipped views' boxes or masks would not be mirrored back, or one of the two would not count."""
    cfg, model = detector()
    tta = wrap(model, use_tta(cfg, [1.0]))
    steps = list(cfg.test_dataloader.dataset.pipeline)
    one, other = (predicted(tta, steps_copy(steps), photo(tmp_path / f"{m}.png", m)) for m in (False, True))
    assert len(one) >= 5 and len(one) == len(other)
    left, top, right, bottom = other.bboxes.unbind(1)
    assert torch.allclose(torch.stack([WIDTH - right, top, WIDTH - left, bottom], 1), one.bboxes, atol=0.05)
    assert torch.allclose(one.scores, other.scores, atol=1e-3)
    assert (one.masks == other.masks.flip(-1)).float().mean() > 0.99
    plain = predicted(
        model, steps_of(load_config(CONFIGS / "quickstart/mask_rcnn.py")), tmp_path / "False.png"
    )
    assert len(plain) != len(one) or not torch.allclose(plain.scores, one.scores, atol=1e-3)


def test_masks_of_flipped_views_are_turned_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each merged mask would be the mean of itself and its mirror image: nearly symmetric things do not show it."""
    _, model = detector()
    tta = wrap(model, dict(type="MSTDetTTAModel"))
    left = torch.full((1, 5, 28, 28), -9.0)
    left[..., :14, :7] = 9.0  # the upper left of its box
    views = iter([left, left.flip(-1)])
    monkeypatch.setattr(model.roi_head, "_mask_forward", lambda *_: {"mask_preds": next(views)})
    meta = {"scale_factor": (1.0, 1.0), "ori_shape": (HEIGHT, WIDTH)}
    results = InstanceData(
        bboxes=torch.tensor([[20.0, 10.0, 84.0, 74.0]]), scores=torch.ones(1), labels=torch.tensor([3])
    )
    found = tta._masks(results, [[], []], [meta, {**meta, "flip": True, "flip_direction": "horizontal"}])
    mask = torch.as_tensor(found.masks)[0]
    expected = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    expected[10:42, 20:36] = True
    assert (mask & expected).sum() / (mask | expected).sum() > 0.9


def steps_copy(steps: list[Any]) -> list[Any]:
    """TestTimeAug builds its transforms into the lists that it is given."""
    return [Config({"step": step}).step for step in steps]


def test_boxes_of_a_view_by_hand() -> None:
    """A box of a resized and flipped view would land elsewhere in the image."""
    meta = {"scale_factor": (2.0, 0.5), "flip": True, "flip_direction": "horizontal", "ori_shape": (100, 200)}
    view = torch.tensor([[20.0, 10.0, 60.0, 40.0]])
    image = torch.tensor([[170.0, 20.0, 190.0, 80.0]])
    assert torch.equal(_to_image(view, meta), image)
    assert torch.equal(_to_view(image, meta), view)
    with pytest.raises(UserError, match="horizontal"):
        _to_image(view, dict(meta, flip_direction="vertical"))


@pytest.mark.parametrize(("name", "count"), [("coco/mask_rcnn_mst.py", 3), ("cityscapes/upernet_mst.py", 6)])
def test_views_of_the_shipped_configs(name: str, count: int) -> None:
    """--tta would test other sizes than mmdet's and mmseg's, or flip the label maps too."""
    cfg = load_config(CONFIGS / name)
    width, height = next(s.scale for s in cfg.test_dataloader.dataset.pipeline if s.type == "Resize")
    model = use_tta(cfg)
    load, views = cfg.test_dataloader.dataset.pipeline
    sizes, flips, *rest = views.transforms
    assert (load.type, len(sizes), [flip.prob for flip in flips]) == ("LoadImageFromFile", count, [0, 1])
    assert sizes[0].scale == (round(width / 2), round(height / 2)) and sizes[-1].scale[0] > 1.4 * width
    assert all(size.keep_ratio for size in sizes)
    if "coco" in name:
        assert model == {"type": "MSTDetTTAModel"} and {"flip", "flip_direction"} <= set(
            rest[-1][0].meta_keys
        )
    else:
        assert model == {"type": "SegTTAModel"} and rest[0][0].type == "LoadAnnotations"


def test_the_configs_own_augmentation_comes_first() -> None:
    """tta_pipeline of a user's config would be ignored without a word; factors on the command line replace it."""
    cfg = load_config(CONFIGS / "cityscapes/upernet_mst.py")
    cfg.tta_pipeline, cfg.tta_model = [dict(type="LoadImageFromFile")], dict(type="Own")
    assert use_tta(cfg) == {"type": "Own"} and cfg.test_dataloader.dataset.pipeline == cfg.tta_pipeline
    cfg = load_config(CONFIGS / "cityscapes/upernet_mst.py")
    cfg.tta_pipeline, cfg.tta_model = [dict(type="LoadImageFromFile")], dict(type="Own")
    assert use_tta(cfg, [0.5, 1.0])["type"] == "SegTTAModel"
    assert len(cfg.test_dataloader.dataset.pipeline[1].transforms[0]) == 2


def test_what_cannot_be_augmented_is_refused() -> None:
    """A pipeline without a size, or a one-stage detector, would end in a traceback after loading."""
    cfg = load_config(CONFIGS / "cityscapes/upernet_mst.py")
    cfg.test_dataloader.dataset.pipeline = [dict(type="LoadImageFromFile"), dict(type="PackSegInputs")]
    with pytest.raises(UserError, match="tta_pipeline"):
        use_tta(cfg)
    with pytest.raises(UserError, match="two-stage"):
        MSTDetTTAModel(type("OneStage", (torch.nn.Module,), {"test_step": None})())


@pytest.mark.parametrize("factor", [0.0, -1.0, 0.001, 1e9, math.nan, math.inf])
@pytest.mark.parametrize("name", ["coco/mask_rcnn_mst.py", "cityscapes/upernet_mst.py"])
def test_a_factor_of_no_use_is_refused(name: str, factor: float) -> None:
    """OpenCV would end a test in a traceback, or an image take all the memory."""
    with pytest.raises(UserError, match=r"--tta-scales \S+: give factors of the test size from 0\.1 to 10"):
        use_tta(load_config(CONFIGS / name), [1.0, factor])
    use_tta(load_config(CONFIGS / name), [0.1, 10])

"""One picture of what was learned: attention, mask, restoration, and predictions beside the truth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, MODELS, init_default_scope
from torch.nn import functional as F
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks

from mst_pretrain import register  # noqa: F401
from mst_pretrain.checkpoints.loading import load_model
from mst_pretrain.checkpoints.storage import load_checkpoint
from mst_pretrain.data.decode import read_rgb
from mst_pretrain.data.photometric import IMAGENET_MEAN, IMAGENET_STD
from mst_pretrain.method.backbones import output_stride
from mst_pretrain.runtime.atomic import replacing
from mst_transfer.prediction import Predictor

matplotlib.use("Agg")
from matplotlib import pyplot as plt

Picture = np.ndarray  # [H, W, 3] uint8 or [H, W] float


@torch.no_grad()
def draw_sheet(out: Path, rows: int = 4) -> Path:
    """Draw ``out/quickstart.png`` from a finished run.

    Args:
        out: The quickstart's output folder.
        rows: Validation images shown.

    Returns:
        The picture's path.
    """
    segmentation = {arm: _segmentation(out, arm, rows) for arm in ("random", "mst")}
    detection = {arm: _detection(out, arm, rows) for arm in ("random", "mst")}
    paths = [row["path"] for row in segmentation["mst"]]
    columns: list[tuple[str, list[Picture]]] = [
        *_pretraining(out, paths),
        ("truth", [row["truth"] for row in segmentation["mst"]]),
        ("UperNet, random start", [row["prediction"] for row in segmentation["random"]]),
        ("UperNet, MST start", [row["prediction"] for row in segmentation["mst"]]),
        ("truth", [row["truth"] for row in detection["mst"]]),
        ("Mask R-CNN, random start", [row["prediction"] for row in detection["random"]]),
        ("Mask R-CNN, MST start", [row["prediction"] for row in detection["mst"]]),
    ]
    figure, axes = plt.subplots(len(paths), len(columns), figsize=(2.4 * len(columns), 1.45 * len(paths)))
    for column, (title, pictures) in enumerate(columns):
        for row, picture in enumerate(pictures):
            axis = np.atleast_2d(axes)[row, column]
            axis.imshow(picture, cmap="inferno" if picture.ndim == 2 else None)
            axis.axis("off")
            if row == 0:
                axis.set_title(title, fontsize=9)
    figure.tight_layout(pad=0.4)
    path = out / "quickstart.png"
    with replacing(path) as part:
        figure.savefig(part, dpi=110, format="png")
    plt.close(figure)
    return path


def _pretraining(out: Path, paths: list[Path]) -> list[tuple[str, list[Picture]]]:
    """Image, teacher attention, what the student sees, and the restored image."""
    cfg = Config.fromfile(out / "configs/pretrain.py")
    init_default_scope("mmengine")
    model = MODELS.build(cfg.model).eval()
    checkpoint = out / "pretrain/latest.pth"
    load_model(model, load_checkpoint(checkpoint), checkpoint)
    stride = output_stride(model.student.backbone)
    mean, std = torch.tensor(IMAGENET_MEAN).view(3, 1, 1), torch.tensor(IMAGENET_STD).view(3, 1, 1)
    columns: dict[str, list[Picture]] = {
        "image": [],
        "teacher attention": [],
        "student sees": [],
        "restored": [],
    }
    for path in paths:
        image = read_rgb(path)
        size = max(1, image.width // stride) * stride, max(1, image.height // stride) * stride
        pixels = torch.from_numpy(np.array(image.resize(size))).permute(2, 0, 1).float() / 255
        attention, mask, restored = model.restore(((pixels - mean) / std)[None], torch.tensor([0]))
        hidden = torch.zeros_like(pixels[0]) if mask is None else _enlarge(mask[0].float(), stride)
        columns["image"].append(_to_uint8(pixels))
        columns["teacher attention"].append(_enlarge(attention[0], stride).numpy())
        columns["student sees"].append(_to_uint8(torch.where(hidden.bool(), 0.5, pixels)))
        shown = pixels if restored is None else restored[0] * std + mean
        columns["restored"].append(_to_uint8(shown))
    return list(columns.items())


def _segmentation(out: Path, arm: str, rows: int) -> list[dict[str, Any]]:
    """Label maps in the data set's colours."""
    meta, results = _predictions(out, "upernet", arm, rows)
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(meta["palette"])] = meta["palette"]
    found = []
    for result in results:
        truth, prediction = (
            palette[getattr(result, name).data[0].cpu().numpy()] for name in ("gt_sem_seg", "pred_sem_seg")
        )
        found.append({"path": Path(result.img_path), "truth": truth, "prediction": prediction})
    return found


def _detection(out: Path, arm: str, rows: int) -> list[dict[str, Any]]:
    """Boxes and masks on the image; predictions with a score of at least 0.3."""
    meta, results = _predictions(out, "mask_rcnn", arm, rows)
    found = []
    for result in results:
        image = torch.from_numpy(np.array(read_rgb(result.img_path))).permute(2, 0, 1)
        kept = result.pred_instances[result.pred_instances.scores >= 0.3]
        truth = result.gt_instances
        truth_boxes = torch.as_tensor(getattr(truth.bboxes, "tensor", truth.bboxes))
        truth_drawn = _draw(image, truth_boxes, truth.masks.to_ndarray(), truth.labels, meta["classes"])
        drawn = _draw(image, kept.bboxes, kept.masks, kept.labels, meta["classes"])
        found.append({"truth": truth_drawn, "prediction": drawn})
    return found


def _predictions(out: Path, name: str, arm: str, rows: int) -> tuple[dict[str, Any], list[Any]]:
    """What the data set knows of its classes; samples spread over it with truth and prediction."""
    predictor = Predictor(out / f"configs/{name}_{arm}.py", out / arm / name / "latest.pth")
    dataset = DATASETS.build(predictor.config.test_dataloader.dataset)
    places = sorted({int(i * len(dataset) / rows) for i in range(rows)})
    samples = [predictor.model.test_step(pseudo_collate([dataset[place]]))[0] for place in places]
    return dataset.metainfo, samples


def _draw(image: torch.Tensor, boxes: torch.Tensor, masks: Any, labels: Any, names: Any) -> Picture:
    if not len(boxes):
        return image.permute(1, 2, 0).numpy()
    colors = [tuple(int(255 * c) for c in plt.get_cmap("tab10")(int(label) % 10)[:3]) for label in labels]
    drawn = draw_segmentation_masks(image, torch.as_tensor(masks).bool().cpu(), alpha=0.4, colors=colors)
    texts = [names[int(label)] for label in labels]
    return draw_bounding_boxes(drawn, boxes.cpu(), labels=texts, colors=colors).permute(1, 2, 0).numpy()


def _enlarge(grid: torch.Tensor, stride: int) -> torch.Tensor:
    return F.interpolate(grid[None, None].float(), scale_factor=stride, mode="nearest")[0, 0]


def _to_uint8(pixels: torch.Tensor) -> Picture:
    return (pixels.clamp(0, 1) * 255).byte().permute(1, 2, 0).numpy()

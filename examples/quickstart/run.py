"""The quickstart's stages: data, MST pretraining, probe, detection, segmentation, table, picture."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mst_pretrain.data.sources import open_source
from mst_pretrain.runtime.atomic import write_json
from mst_pretrain.runtime.config import load_config
from mst_pretrain.runtime.errors import UserError
from mst_pretrain.runtime.work_dir import writable_folder
from mst_transfer.data import coco_file, coco_rules, pair_rules
from mst_transfer.evaluation import baselines

from . import street
from .tasks import Plan, ToolCall, clock

ARMS = {"random": "initial.pth", "mst": "latest.pth"}
# Seconds of each stage on two cores without a GPU, for the time left only.
STAGES = {
    "MST pretraining": 360.0,
    "Dense probe": 60.0,
    "Dense probe, test": 20.0,
    "Mask R-CNN": 300.0,
    "Mask R-CNN, test": 40.0,
    "UperNet": 220.0,
    "UperNet, test": 25.0,
}
ANNOTATIONS = "annotations/instances_{}2017.json"


@dataclass
class Data:
    """Where the three kinds of data are, checked, and what they hold."""

    images: Path
    coco: Path
    cityscapes: Path
    things: tuple[str, ...]
    classes: tuple[str, ...]


@dataclass
class Quickstart:
    """One run of the quickstart.

    Args:
        root: The repository.
        out: Everything is written below it.
        seed: Of data, pretraining and fine-tuning.
        pretrain_epochs: None for the config's own number.
        images: Own unlabelled images, or None.
        coco: Own data in COCO's layout, or None.
        cityscapes: Own data in Cityscapes' layout, or None.
        max_iters: Stop pretraining and each fine-tuning after so many iterations, to try the whole quickly.
        scenes: Training and validation scenes drawn.
    """

    root: Path
    out: Path
    seed: int = 1
    pretrain_epochs: float | None = None
    images: Path | None = None
    coco: Path | None = None
    cityscapes: Path | None = None
    max_iters: int | None = None
    scenes: tuple[int, int] = (600, 100)

    def run(self) -> dict[str, Any]:
        """All stages; returns what ``OUT/results.json`` holds.

        Raises:
            UserError: Bad data, or a stage failed.
        """
        start = time.monotonic()
        self.check_arguments()
        data = self.prepare_data()
        plan = Plan(self.root, STAGES)
        self.pretrain(plan, data)
        results: dict[str, Any] = {arm: {} for arm in ARMS}
        self.train_and_test(plan, "Dense probe", "probe", data, results, {"mIoU": "probe"})
        detection = {"coco/bbox_mAP": "bbox_mAP", "coco/segm_mAP": "segm_mAP"}
        self.train_and_test(plan, "Mask R-CNN", "mask_rcnn", data, results, detection)
        self.train_and_test(plan, "UperNet", "upernet", data, results, {"mIoU": "mIoU"})
        prior = baselines.position_prior(data.cityscapes, "val", data.classes).mean_iou
        train, val = (data.coco / ANNOTATIONS.format(split) for split in ("train", "val"))
        boxes = {f"{kind}_mAP": baselines.frequent_box_map(train, val, kind) for kind in ("bbox", "segm")}
        whole = {
            "seed": self.seed,
            "seconds": round(time.monotonic() - start, 1),
            "baseline": {"mIoU": 100 * (prior or 0.0), **boxes},
            **results,
        }
        write_json(whole, self.out / "results.json")
        return whole

    def check_arguments(self) -> None:
        """Lengths that make sense, an output folder that can be written.

        Raises:
            UserError: One does not.
        """
        epochs = self.pretrain_epochs
        if epochs is not None and not 0 <= epochs < math.inf:
            raise UserError(f"--pretrain-epochs {epochs}: give 0 or more.")
        if self.max_iters is not None and self.max_iters < 1:
            raise UserError(f"--max-iters {self.max_iters}: give 1 or more, or leave it out.")
        writable_folder(self.out, "--out")

    def prepare_data(self) -> Data:
        """Draw the street scenes unless all three kinds are the user's own; check everything before any work."""
        scenes = self.out / "data"
        if self.coco is None or self.cityscapes is None:
            street.generate(scenes, self.seed, *self.scenes)
        coco, cityscapes = self.coco or scenes / "coco", self.cityscapes or scenes / "cityscapes"
        images = self.images or coco / "train2017"
        photos = open_source(images)
        photos.check()
        train, val = (ANNOTATIONS.format(split) for split in ("train", "val"))
        coco_rules.check_coco(coco, train, "train2017")
        things = coco_file.coco_classes(coco_file.read_coco(coco / train))
        coco_rules.check_coco(coco, val, "val2017", things)
        for split in ("train", "val"):
            pair_rules.check_cityscapes(cityscapes, split)
        classes = pair_rules.cityscapes_present_classes(cityscapes, "train")
        print(f"Pretraining images: {len(photos)} in {images}")
        print(
            f"Detection: {coco}, {len(things)} categories. Segmentation: {cityscapes}, {len(classes)} classes."
        )
        return Data(images, coco, cityscapes, things, classes)

    def pretrain(self, plan: Plan, data: Data) -> None:
        """MST on the training images only; leaves initial.pth (the random arm) and latest.pth (the MST arm)."""
        cfg = self._config("pretrain", data.images)
        if self.pretrain_epochs is not None:
            cfg.train_cfg.max_epochs = self.pretrain_epochs
        cfg.train_cfg.max_iters = self.max_iters
        plan.run("MST pretraining", [self._train("mst", cfg, "pretrain", self.out / "pretrain")])

    def train_and_test(
        self, plan: Plan, stage: str, name: str, data: Data, results: dict[str, Any], metrics: dict[str, str]
    ) -> None:
        """Train one config from both starts, everything else equal, and test it with tools/test.py.

        The wanted metrics go into ``results`` in per cent.
        """
        root, classes = (data.coco, data.things) if name == "mask_rcnn" else (data.cityscapes, data.classes)
        trainings, tests = [], []
        for arm, weights in ARMS.items():
            cfg = self._config(name, root)
            cfg.model.backbone.init_cfg.checkpoint = str(self.out / "pretrain" / weights)
            cfg.train_cfg.max_iters = min(cfg.train_cfg.max_iters, self.max_iters or cfg.train_cfg.max_iters)
            _set_classes(cfg, classes)
            training = self._train(arm, cfg, f"{name}_{arm}", self.out / arm / name)
            arguments = ["tools/test.py", training.arguments[1], str(self.out / arm / name / "latest.pth")]
            trainings.append(training)
            tests.append(ToolCall(arm, arguments, self.out / f"logs/{name}_{arm}_test.log"))
        plan.run(stage, trainings)
        plan.run(f"{stage}, test", tests)
        for arm in ARMS:
            measured = json.loads((self.out / arm / name / "test_metrics.json").read_text())
            for key, title in metrics.items():
                scale = 100 if key.startswith("coco/") else 1  # mmdet's AP is a fraction
                results[arm][title] = round(scale * measured[key], 4)

    def _config(self, name: str, data_root: Path) -> Config:
        options = {"data_root": str(data_root), "randomness.seed": self.seed}
        return load_config(self.root / f"configs/quickstart/{name}.py", options)

    def _train(self, arm: str, cfg: Config, name: str, work_dir: Path) -> ToolCall:
        """The training of a config, which is written for it."""
        cfg.work_dir = str(work_dir)
        path = self.out / "configs" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        cfg.dump(path)
        return ToolCall(arm, ["tools/train.py", str(path)], self.out / f"logs/{name}.log")


def _set_classes(cfg: Config, classes: tuple[str, ...]) -> None:
    """In the data sets and in the heads."""
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.metainfo = dict(classes=classes)
    roi = cfg.model.get("roi_head")
    for head in (roi.bbox_head, roi.mask_head) if roi else (cfg.model.decode_head,):
        head.num_classes = len(classes)


def table(results: dict[str, Any]) -> str:
    """The results as a Markdown table, per cent."""
    baseline = results["baseline"]
    rows = [
        ("Dense probe, mIoU", "probe", baseline["mIoU"]),
        ("Mask R-CNN, box AP", "bbox_mAP", baseline["bbox_mAP"]),
    ]
    rows += [
        ("Mask R-CNN, mask AP", "segm_mAP", baseline["segm_mAP"]),
        ("UperNet, mIoU", "mIoU", baseline["mIoU"]),
    ]
    lines = ["| | trivial baseline | random start | MST start |", "|---|---|---|---|"]
    for title, key, trivial in rows:
        lines.append(
            f"| {title} | {trivial:.2f} | {results['random'][key]:.2f} | {results['mst'][key]:.2f} |"
        )
    return "\n".join([*lines, "", f"seed {results['seed']}, {clock(results['seconds'])} after set-up"])

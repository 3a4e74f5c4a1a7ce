"""The quickstart's stages: data, MST pretraining, probe, export, detection, segmentation, table, picture."""

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
from mst_pretrain.runtime.errors import UserError
from mst_transfer.data import baselines, coco_file, coco_rules, pair_rules
from mst_transfer.evaluation.output import writable_folder

from . import street
from .tasks import Plan, ToolCall, clock

ARMS = {"random": "initial.pth", "mst": "latest.pth"}
# Seconds of each stage on two cores without a GPU, for the time left only.
STAGES = {
    "MST pretraining": 360.0,
    "Dense probe": 60.0,
    "Dense probe, test": 20.0,
    "Export": 8.0,
    "Mask R-CNN": 300.0,
    "Mask R-CNN, test": 40.0,
    "UperNet": 220.0,
    "UperNet, test": 25.0,
}
TRAINING_PHOTOS = "Mask R-CNN, training photos"


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
        stages = STAGES | ({TRAINING_PHOTOS: 30.0} if self.coco else {})
        plan = Plan(self.root, stages)
        self.pretrain(plan, data)
        results: dict[str, Any] = {arm: {} for arm in ARMS}
        self.train_and_test(plan, "Dense probe", "probe", data, results, {"mIoU": "probe"})
        plan.run(
            "Export",
            [
                self._tool(arm, "convert_checkpoint.py", self._weights(arm), self._exported(arm))
                for arm in ARMS
            ],
        )
        detection = {"coco/bbox_mAP": "bbox_mAP", "coco/segm_mAP": "segm_mAP"}
        self.train_and_test(plan, "Mask R-CNN", "mask_rcnn", data, results, detection)
        if self.coco:
            self.test(
                plan,
                TRAINING_PHOTOS,
                "mask_rcnn_train",
                results,
                {k: f"{v}_train" for k, v in detection.items()},
            )
        self.train_and_test(plan, "UperNet", "upernet", data, results, {"mIoU": "mIoU"})
        baseline = {
            "mIoU": baselines.cityscapes_position_prior(data.cityscapes, data.classes),
            "bbox_mAP": baselines.coco_frequent_box(data.coco),
        }
        whole = {
            "seed": self.seed,
            "seconds": round(time.monotonic() - start, 1),
            "baseline": baseline,
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
        writable_folder(self.out)

    def prepare_data(self) -> Data:
        """Draw the street scenes unless all three kinds are the user's own; check everything before any work."""
        scenes = self.out / "data"
        for given, name in (
            (self.images, "--images"),
            (self.coco, "--coco"),
            (self.cityscapes, "--cityscapes"),
        ):
            if given is not None and not given.is_dir():
                raise UserError(
                    f"{name} {given}: there is no such folder. Give an existing one, or leave {name} out."
                )
        if self.coco is None or self.cityscapes is None:
            street.generate(scenes, self.seed, *self.scenes)
        coco, cityscapes = self.coco or scenes / "coco", self.cityscapes or scenes / "cityscapes"
        images = self.images or coco / "train2017"
        photos = open_source(images)
        photos.check()
        train = "annotations/instances_train2017.json"
        coco_rules.check_coco(coco, train, "train2017")
        things = coco_file.coco_classes(coco_file.read_coco(coco / train))
        coco_rules.check_coco(coco, "annotations/instances_val2017.json", "val2017", things)
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
        cfg = Config.fromfile(self.root / "configs/quickstart/pretrain.py")
        cfg.data_root = cfg.train_dataloader.dataset.data_root = str(data.images)
        cfg.randomness.seed = self.seed
        if self.pretrain_epochs is not None:
            cfg.train_cfg.max_epochs = self.pretrain_epochs
        cfg.train_cfg.max_iters = self.max_iters
        config = self._dump(cfg, "pretrain", self.out / "pretrain")
        plan.run(
            "MST pretraining",
            [ToolCall("mst", ["tools/train.py", str(config)], self.out / "logs/pretrain.log")],
        )

    def train_and_test(
        self, plan: Plan, stage: str, name: str, data: Data, results: dict[str, Any], metrics: dict[str, str]
    ) -> None:
        """Train one config from both starts, everything else equal, and test it with tools/test.py."""
        tasks = []
        for arm in ARMS:
            cfg = Config.fromfile(self.root / f"configs/quickstart/{name}.py")
            cfg.randomness = dict(seed=self.seed)
            cfg.model.backbone.init_cfg.checkpoint = str(self._weights(arm))
            cfg.train_cfg.max_iters = min(cfg.train_cfg.max_iters, self.max_iters or cfg.train_cfg.max_iters)
            (_set_coco if name == "mask_rcnn" else _set_cityscapes)(cfg, data)
            work_dir = self.out / arm / name
            config = self._dump(cfg, f"{name}_{arm}", work_dir)
            if name == "mask_rcnn":
                cfg.test_dataloader = _on_training_photos(cfg)
                cfg.test_evaluator.ann_file = str(data.coco / "annotations/instances_train2017.json")
                self._dump(cfg, f"{name}_train_{arm}", self.out / arm / f"{name}_train")
            tasks.append(ToolCall(arm, ["tools/train.py", str(config)], self.out / f"logs/{name}_{arm}.log"))
        plan.run(stage, tasks)
        self.test(plan, f"{stage}, test", name, results, metrics)

    def test(
        self, plan: Plan, stage: str, name: str, results: dict[str, Any], metrics: dict[str, str]
    ) -> None:
        """tools/test.py on both arms; the wanted metrics go into ``results`` in per cent."""
        trained = name.removesuffix("_train")
        tasks = [
            ToolCall(
                arm,
                [
                    "tools/test.py",
                    str(self._config(f"{name}_{arm}")),
                    str(self.out / arm / trained / "latest.pth"),
                ],
                self.out / f"logs/{name}_{arm}_test.log",
            )
            for arm in ARMS
        ]
        plan.run(stage, tasks)
        for arm in ARMS:
            measured = json.loads((self.out / arm / name / "test_metrics.json").read_text())
            for key, title in metrics.items():
                scale = (
                    100 if key.startswith("coco/") else 1
                )  # mmdet's AP is a fraction, mmseg's IoU per cent
                results[arm][title] = round(scale * measured[key], 4)

    def _tool(self, arm: str, tool: str, *arguments: Path) -> ToolCall:
        return ToolCall(arm, [f"tools/{tool}", *map(str, arguments)], self.out / f"logs/{tool}_{arm}.log")

    def _weights(self, arm: str) -> Path:
        return self.out / "pretrain" / ARMS[arm]

    def _exported(self, arm: str) -> Path:
        return self.out / f"{arm}_backbone.safetensors"

    def _config(self, name: str) -> Path:
        return self.out / "configs" / f"{name}.py"

    def _dump(self, cfg: Config, name: str, work_dir: Path) -> Path:
        cfg.work_dir = str(work_dir)
        path = self._config(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        cfg.dump(path)
        return path


def _set_coco(cfg: Config, data: Data) -> None:
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.data_root = str(data.coco)
        loader.dataset.metainfo = dict(classes=data.things)
    for evaluator in (cfg.val_evaluator, cfg.test_evaluator):
        evaluator.ann_file = str(data.coco / "annotations/instances_val2017.json")
    cfg.model.roi_head.bbox_head.num_classes = len(data.things)
    cfg.model.roi_head.mask_head.num_classes = len(data.things)


def _on_training_photos(cfg: Config) -> Any:
    loader = cfg.test_dataloader
    loader.dataset.ann_file = cfg.train_dataloader.dataset.ann_file
    loader.dataset.data_prefix = cfg.train_dataloader.dataset.data_prefix
    return loader


def _set_cityscapes(cfg: Config, data: Data) -> None:
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.data_root = str(data.cityscapes)
        loader.dataset.metainfo = dict(classes=data.classes)
    heads = [cfg.model.decode_head, cfg.model.get("auxiliary_head")]
    for head in heads:
        if head is not None:
            head.num_classes = len(data.classes)


def table(results: dict[str, Any]) -> str:
    """The results as a Markdown table, per cent."""
    baseline = results["baseline"]
    rows = [("Dense probe, mIoU", "probe", None), ("Mask R-CNN, box AP", "bbox_mAP", baseline["bbox_mAP"])]
    rows += [("Mask R-CNN, mask AP", "segm_mAP", None), ("UperNet, mIoU", "mIoU", baseline["mIoU"])]
    if "bbox_mAP_train" in results["mst"]:
        rows += [("Mask R-CNN, box AP on the training photos", "bbox_mAP_train", None)]
    lines = ["| | trivial baseline | random start | MST start |", "|---|---|---|---|"]
    for title, key, trivial in rows:
        shown = "" if trivial is None else f"{trivial:.2f}"
        lines.append(f"| {title} | {shown} | {results['random'][key]:.2f} | {results['mst'][key]:.2f} |")
    return "\n".join([*lines, "", f"seed {results['seed']}, {clock(results['seconds'])} after set-up"])

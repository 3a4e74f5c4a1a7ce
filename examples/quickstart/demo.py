"""The demonstration: draw, pretrain for a minute, read out, show. Needs neither mmdet nor mmseg."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from mst_pretrain.runtime.atomic import write_json
from mst_pretrain.runtime.config import load_config
from mst_pretrain.runtime.devices import emulates_bfloat16
from mst_pretrain.runtime.run_files import LATEST
from mst_pretrain.runtime.work_dir import writable_folder

from .arms import LIVE, RANDOM, SHIPPED, MeasuredArms, arms_of, measure
from .drawn import Scenes, draw, draw_photos
from .judge import JUDGED
from .page import write_page
from .panel import draw_panel, label_columns, pretraining_columns
from .readouts import LABELLED, FeatureArm
from .tasks import Plan, ToolCall, clock

SHIPPED_FOLDER = Path(__file__).with_name("shipped")
SHIPPED_FILE = SHIPPED_FOLDER / "mst_street_vit.safetensors"
JUDGED_FILE = SHIPPED_FOLDER / "judged.json"
# Seconds of each stage on two cores without a GPU, for the time left only.
STAGES = {"drawing scenes": 25.0, "MST pretraining": 85.0, "read-outs": 60.0, "picture and report": 10.0}
SHOWN = 4  # validation scenes in the picture
ON_PHOTOGRAPHS = (
    "Recorded on photographs instead (studies/mask_study_cpu, one seed): pretrained on photographs of 64 pixels and "
    "read out on the street frames of CamVid, MST reaches 24.3 % mIoU, random weights 19.2, the position prior 16.7, "
    "raw pixels 12.8."
)


@dataclass(frozen=True)
class DemoSize:
    """How much is drawn and trained.

    Attributes:
        scenes: Unlabelled ones for the live run.
        steps: Of the live run.
        workers: Processes that cut its crops.
        labelled: Numbers of labelled scenes for the heads.
        val: Validation scenes.
    """

    scenes: int
    steps: int
    workers: int
    labelled: tuple[int, ...] = LABELLED
    val: int = 200


ON_A_GPU = DemoSize(scenes=4000, steps=2500, workers=4)
ON_A_CPU = DemoSize(scenes=800, steps=450, workers=0)
ON_AN_OLD_CPU = DemoSize(scenes=800, steps=200, workers=0)  # without instructions for bfloat16


def size_here() -> DemoSize:
    """What takes a minute or two on this machine."""
    if torch.cuda.is_available():
        return ON_A_GPU
    return ON_AN_OLD_CPU if emulates_bfloat16(torch.device("cpu")) else ON_A_CPU


@dataclass
class Demonstration:
    """One run of it.

    Args:
        root: Holds ``configs`` and ``tools``.
        out: Everything is written below it.
        seed: Of scenes, labels, random start and live run.
        size: None for what suits this machine.
        shipped: The pretrained checkpoint; where it is missing, its arm is left out.
    """

    root: Path
    out: Path
    seed: int = 1
    size: DemoSize | None = None
    shipped: Path = SHIPPED_FILE

    def run(self) -> dict[str, Any]:
        """All stages; returns what ``OUT/results.json`` holds.

        Raises:
            UserError: The folder cannot be written, or the live run failed.
        """
        start = time.monotonic()
        writable_folder(self.out, "--out")
        self.size = size = self.size or size_here()
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        plan = Plan(self.root, STAGES)
        photos = self.out / f"unlabelled/seed{self.seed}_{size.scenes}"
        labelled, val = self.draw(plan, photos, size)
        live = self.pretrain(plan, photos, size)
        arms, measured = self.read_out(plan, labelled, val, size)
        results = self.results(measured, live, size)
        plan.begin("picture and report")
        results["seconds"] = round(time.monotonic() - start, 1)
        write_json(results, self.out / "results.json")
        panel = self.picture(arms, measured, val.first(SHOWN))
        write_page(results, panel, live_curves(self.out / "live"), self.out / "report.html")
        plan.end()
        return results

    def draw(self, plan: Plan, photos: Path, size: DemoSize) -> tuple[Scenes, Scenes]:
        """Unlabelled scenes as files, labelled and validation scenes in memory."""
        plan.begin("drawing scenes")
        over = partial(_counted, plan, size.scenes + max(size.labelled) + size.val, iter(range(10**9)))
        draw_photos(photos, self.seed, size.scenes, over)
        labelled = draw(self.seed, "labelled", max(size.labelled), over)
        val = draw(self.seed, "val", size.val, over)
        plan.end(f"{size.scenes} unlabelled, {len(labelled)} labelled, {len(val)} for validation")
        return labelled, val

    def pretrain(self, plan: Plan, photos: Path, size: DemoSize) -> dict[str, Any]:
        """Pretrain with MST on the unlabelled scenes in a separate process; return what the report says of it."""
        cfg = load_config(
            self.root / "configs/quickstart/live.py",
            {"data_root": str(photos), "randomness.seed": self.seed, "train_cfg.max_iters": size.steps},
        )
        cfg.train_dataloader.num_workers = size.workers
        cfg.train_dataloader.persistent_workers = size.workers > 0
        if self.device.type == "cpu" and not emulates_bfloat16(self.device):
            cfg.optim_wrapper.dtype = "bfloat16"
        cfg.work_dir = str(self.out / "live")
        path = self.out / "configs/live.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        cfg.dump(path)
        start = time.monotonic()
        plan.run(
            "MST pretraining", [ToolCall("step", ["tools/train.py", str(path)], self.out / "logs/live.log")]
        )
        seconds = round(time.monotonic() - start, 1)
        batch = cfg.train_dataloader.batch_size
        return {"steps": size.steps, "batch": batch, "scenes": size.scenes, "seconds": seconds}

    def read_out(
        self, plan: Plan, labelled: Scenes, val: Scenes, size: DemoSize
    ) -> tuple[dict[str, FeatureArm], MeasuredArms]:
        """Every arm, with every number of labelled scenes."""
        plan.begin("read-outs")
        shipped = self.shipped if self.shipped.is_file() else None
        arms = arms_of(self.seed, self.out / "live" / LATEST, shipped, self.device)
        total, read = len(arms) * (sum(size.labelled) + size.val), 0

        def done(scenes: int) -> None:
            nonlocal read
            read += scenes
            plan.say_sometimes(read / total, f"{read}/{total} scenes")

        measured = measure(arms, labelled, val, size.labelled, self.device, done)
        plan.end(f"{len(arms)} arms")
        return {arm.title: arm for arm in arms}, measured

    def results(self, measured: MeasuredArms, live: dict[str, Any], size: DemoSize) -> dict[str, Any]:
        """Everything but the picture."""
        found: dict[str, Any] = {
            "seed": self.seed,
            "labelled scenes": list(size.labelled),
            "validation scenes": size.val,
            "scores": measured.scores(),
            "gains over the random start": measured.gains(),
            "live run": live,
            "notes": list(notes(self.shipped)),
        }
        return {"verdict": verdict(found), **found}

    def picture(self, arms: dict[str, FeatureArm], measured: MeasuredArms, scenes: Scenes) -> Path:
        """``OUT/quickstart.png``."""
        columns = pretraining_columns(self.out / "configs/live.py", self.out / "live" / LATEST, scenes.images)
        best = SHIPPED if SHIPPED in arms else LIVE
        heads = {arm: measured.heads[arm][max(measured.heads[arm])] for arm in (RANDOM, best)}
        shown = {f"read-out, {arm}": (arms[arm], head) for arm, head in heads.items()}
        return draw_panel([*columns, *label_columns(scenes, shown, self.device)], self.out / "quickstart.png")


def _counted(plan: Plan, total: int, numbers: Iterator[int], scenes: Iterable[Any]) -> Iterator[Any]:
    """Pass scenes on and say how many of all are drawn."""
    for scene in scenes:
        count = next(numbers) + 1
        plan.say_sometimes(count / total, f"{count}/{total}")
        yield scene


def live_curves(work_dir: Path) -> dict[str, list[float]]:
    """``step``, ``loss_ce`` and ``loss_rec`` of the newest run below a work directory."""
    newest = max(work_dir.glob("*/vis_data/scalars.json"))  # the folder's name is the time it began
    lines = [json.loads(line) for line in newest.read_text().splitlines()]
    return {key: [float(line[key]) for line in lines] for key in ("step", "loss_ce", "loss_rec")}


def verdict(results: dict[str, Any]) -> str:
    """What came out, in one or two sentences with the difference and its interval."""
    few, many = (str(results["labelled scenes"][place]) for place in (0, -1))
    best = SHIPPED if SHIPPED in results["scores"] else LIVE
    parts = []
    for count in (few, many):
        gain = results["gains over the random start"][best][count]
        parts.append(
            f"with {count} labelled scenes {results['scores'][best][count]:.1f} % mIoU, from random weights "
            f"{results['scores'][RANDOM][count]:.1f} (difference {gain['value']:+.1f} points, 95 % interval "
            f"{gain['low']:+.1f} to {gain['high']:+.1f})"
        )
    who = (
        "The shipped checkpoint, pretrained"
        if best == SHIPPED
        else "The network that was pretrained just now,"
    )
    return f"{who} without any label, tells what is where in a drawn street scene: {'; '.join(parts)}."


def notes(shipped: Path, judged: Path = JUDGED_FILE) -> Iterator[str]:
    """What a reader of the table has to know."""
    yield (
        "Raw pixels and the position prior (how frequent the classes are at each place) know nothing of any "
        "training: a score that is not above theirs shows nothing."
    )
    if not shipped.is_file():
        yield f"There is no shipped checkpoint at {shipped}: its row is left out."
        yield "The live run alone is too short to show a large gain."
        return
    if judged.is_file():
        yield judgement(json.loads(judged.read_text()))


def judgement(recorded: dict[str, Any]) -> str:
    """How the shipped checkpoint was judged, and what came out, from what ``judge.py`` wrote."""
    seeds = recorded["seeds"].values()
    ranges = []
    for count in map(str, JUDGED):
        gains = [seed["gains over the random start"][count]["value"] for seed in seeds]
        ranges.append(f"{min(gains):+.1f} to {max(gains):+.1f} points with {count} labelled scenes")
    text = (
        "Recorded: the shipped checkpoint was judged once, on seeds that chose nothing "
        f"({', '.join(recorded['seeds'])}); seeds 1 to 3 chose scenes, length and head. "
        f"Above the random start: {', '.join(ranges)}. The criterion ({recorded['criterion']}) "
    )
    return text + ("was met." if recorded["met"] else f"was NOT met. {ON_PHOTOGRAPHS}")


def table(results: dict[str, Any]) -> str:
    """The results as a Markdown table, per cent: a row for each number of labelled scenes, trivial baselines in it."""
    arms = results["scores"]
    lines = [f"| mIoU of frozen features, % | {' | '.join(arms)} |", "|---" * (len(arms) + 1) + "|"]
    for count in map(str, results["labelled scenes"]):
        cells = []
        for arm, scores in arms.items():
            gain = results["gains over the random start"].get(arm, {}).get(count)
            more = f" ({gain['value']:+.1f}, {gain['low']:+.1f} to {gain['high']:+.1f})" if gain else ""
            cells.append(f"{scores[count]:.1f}{more}")
        lines.append(f"| {count} labelled scenes | {' | '.join(cells)} |")
    lines += ["", "In brackets: points above the random start, 95 % interval over the validation scenes."]
    return "\n".join([*lines, f"seed {results['seed']}, {clock(results['seconds'])} after set-up"])

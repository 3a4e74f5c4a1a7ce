"""Every training config of the repository, shrunk, through two steps in two processes on the CPU (gloo).

    python tests/qa/two_processes.py [CONFIG ...]

A parameter that gets no gradient, a hook that reaches through a wrapper, or a check that only one process makes ends or
hangs such a run, in the second step at the latest. The configs keep their kinds of networks, losses, optimizers and
data sets; one set of options, by the last part of a key, makes images, heads and batches small and the backbones of
pretraining shallow. A line for each config, and exit code 1 where one failed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import multiprocessing
import os
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PROCESSES, STEPS, SECONDS = 2, 2, 600
CLASSES = ("road", "sidewalk", "building", "vegetation", "sky", "person", "car", "truck", "bus", "bicycle")
THINGS = CLASSES[5:]
SMALL = {
    "batch_size": "2",
    "num_workers": "0",
    "init_cfg": "None",
    "prototypes": "64",
    "hidden_dim": "64",
    "bottleneck_dim": "16",
    "local_count": "1",
    "min_size": "1",
    "num": "16",  # proposals sampled for the heads
    "nms_pre": "50",
    "max_per_img": "50",
    "max_iters": str(STEPS),
    "val_interval": "1000000",
    "val_begin": "1000000",
}
SMALL_CROPS = {"global_crops": "64", "local_crop": "32"}
SMALL_IMAGES = {"scale": "(256, 128)", "scales": "[(256, 128)]", "crop_size": "(128, 128)"}
NEEDS_GPUS = {"model.head.norm": ("syncbn", "bn")}  # synchronized batch norm


def configs() -> list[Path]:
    """Those that train something; the drop-ins are for other repositories' tools."""
    from mst_pretrain.runtime.config import load_config

    folders = [
        folder for folder in sorted((ROOT / "configs").iterdir()) if folder.name not in ("_base_", "drop_in")
    ]
    files = [file for folder in folders for file in sorted(folder.glob("*.py"))]
    return [file for file in files if complete(load_config(file))]


def complete(cfg: Any) -> bool:
    """Whether a config has a whole model: quickstart/segmentation.py is what two others share."""
    return cfg.model.type != "EncoderDecoder" or "decode_head" in cfg.model


def draw(folder: Path) -> dict[str, tuple[Path, tuple[str, ...]]]:
    """Drawn scenes in every layout: type of data set to data root and classes."""
    import numpy as np
    from PIL import Image

    sys.path.insert(0, str(ROOT / "examples"))
    from quickstart.street import LABEL_IDS, generate

    generate(folder, seed=0, train=8, val=2)
    lookup = np.full(256, 255, np.uint8)
    lookup[sorted(LABEL_IDS)] = range(len(LABEL_IDS))
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (folder / "pair" / kind / split).mkdir(parents=True)
        for file in (folder / "cityscapes/leftImg8bit" / split).rglob("*.png"):
            name = file.name.replace("_leftImg8bit", "")
            (folder / "pair/images" / split / name).symlink_to(file)
            labels = (
                str(file)
                .replace("leftImg8bit.png", "gtFine_labelTrainIds.png")
                .replace("leftImg8bit", "gtFine")
            )
            Image.fromarray(lookup[np.asarray(Image.open(labels))]).save(
                folder / "pair/labels" / split / name
            )
    return {
        "CocoDataset": (folder / "coco", THINGS),
        "StreetSegmentation": (folder / "cityscapes", CLASSES),
        "FolderSegmentation": (folder / "pair", CLASSES),
        "UnlabelledImages": (folder / "coco/train2017", ()),
    }


def options(config: Path, data: dict[str, tuple[Path, tuple[str, ...]]]) -> list[str]:
    """The one set of options, for the keys that a config has."""
    from mst_pretrain.runtime.config import load_config

    cfg = load_config(config)
    root, classes = data[cfg.train_dataloader.dataset.type]
    found = {"data_root": str(root)}
    live = {
        name: cfg[name]
        for name in ("model", "train_dataloader", "val_dataloader", "train_cfg")
        if name in cfg
    }
    for key, value in leaves(live):
        name = key.rpartition(".")[2]
        if name in SMALL and not key.endswith(("val_dataloader.batch_size", "masking.num")):
            found[key] = SMALL[name]
        elif name in SMALL_IMAGES and ".pipeline." in key:
            found[key] = SMALL_IMAGES[name]
        elif name == "size" and ".crops." in key:
            found[key] = SMALL_CROPS[key.split(".crops.")[1].partition(".")[0]]
        elif name == "num_classes":
            found[key] = str(len(classes))
        elif key == "model.data_preprocessor.size":
            found[key] = SMALL_IMAGES["crop_size"]
        elif key in NEEDS_GPUS and value == NEEDS_GPUS[key][0]:
            found[key] = NEEDS_GPUS[key][1]
    if not classes:
        swin = "swin" in cfg.model.backbone.name
        found["+model.backbone.depths" if swin else "+model.backbone.depth"] = "(1,1,1,1)" if swin else "1"
    else:
        for loader in ("train_dataloader", "val_dataloader"):
            new = "" if "metainfo" in cfg[loader].dataset else "+"
            found[f"{new}{loader}.dataset.metainfo.classes"] = f"({','.join(classes)})"
    return [f"{key}={value}" for key, value in found.items()]


def leaves(node: Any, prefix: str = "") -> Any:
    """Every dotted key of a config whose value is not opened further, and that value."""
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in items:
        name = f"{prefix}{key}"
        opened = isinstance(value, dict) or (
            isinstance(value, list) and value and isinstance(value[0], (dict, list))
        )
        if opened and name.rpartition(".")[2] != "init_cfg":
            yield from leaves(value, f"{name}.")
        elif value is not None or name.rpartition(".")[2] == "max_iters":
            yield name, value


def one_process(rank: int, port: int, output: Path, arguments: list[str]) -> None:
    """What torchrun would start: tools/train.py as one of the processes."""
    with output.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": PROCESSES, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in names.items()}, MASTER_ADDR="127.0.0.1")
    from mst_pretrain.runtime.errors import run_cli

    spec = importlib.util.spec_from_file_location("tools_train", ROOT / "tools/train.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    run_cli(lambda: module.main([*arguments, "--launcher", "pytorch"]))


def attempt(config: Path, given: list[str], folder: Path) -> tuple[float | None, str]:
    """Loss of the last step of a training in all processes, or None; and what is to be said about it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = [str(config), "--work-dir", str(folder / "run"), "--cfg-options", *given]
    context = multiprocessing.get_context("fork")  # everything is imported once
    outputs = [folder / f"{rank}.txt" for rank in range(PROCESSES)]
    processes = [
        context.Process(target=one_process, args=(rank, port, output, arguments))
        for rank, output in enumerate(outputs)
    ]
    for process in processes:
        process.start()
    end = time.monotonic() + SECONDS
    while any(process.is_alive() for process in processes) and time.monotonic() < end:
        if any(process.exitcode for process in processes):
            end = min(end, time.monotonic() + 20)  # the others may wait for it for ever
        time.sleep(0.1)
    for process in processes:
        process.kill()
        process.join()
    if any(process.exitcode for process in processes):
        lines = [line for output in outputs for line in output.read_text().splitlines() if line.strip()]
        errors = [line for line in lines if "Error" in line or line.startswith("error:")]
        return None, (errors or lines or ["it hangs"])[0][:160]
    losses = [
        json.loads(line)["loss"]
        for file in folder.rglob("scalars.json")
        for line in file.read_text().splitlines()
        if "loss" in line
    ]
    return (losses[-1], "ok") if len(losses) == STEPS else (None, f"{len(losses)} steps in the log")


def main() -> int:
    """Try all, print the table; 1 where one failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("configs", nargs="*", type=Path, metavar="CONFIG", help="default: every one")
    args = parser.parse_args()

    os.environ.update(CUDA_VISIBLE_DEVICES="", OMP_NUM_THREADS="1")
    import torch

    import mst_transfer.training.loops  # noqa: F401  every process would import it anew

    torch.set_num_threads(1)
    failed = 0
    with tempfile.TemporaryDirectory() as temporary:
        data = draw(Path(temporary, "data"))
        print(f"{'config':52} {'loss':>8} {'seconds':>8}", flush=True)
        for config in args.configs or configs():
            began = time.monotonic()
            with tempfile.TemporaryDirectory(dir=temporary) as folder:
                loss, word = attempt(config, options(config, data), Path(folder))
            failed += loss is None
            name = str(config.resolve().relative_to(ROOT / "configs"))
            shown = "" if loss is None else f"{loss:.3f}"
            print(f"{name:52} {shown:>8} {time.monotonic() - began:8.1f} {word}", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())

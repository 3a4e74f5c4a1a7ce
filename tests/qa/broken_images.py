"""A pretraining over broken images, killed once in between: does it end, is the list exact, are the weights the same?

    python tests/qa/broken_images.py [--prefix "setpriv --bounding-set=-dac_override,-dac_read_search"]

2 % of the images are broken: truncated, empty, text, unreadable by permission, and removed in the middle of the first
epoch (after they were used, before the second needs them). The run goes over them twice. A second run is killed with
SIGKILL after a checkpoint that follows the removal, and resumed. ``--prefix`` stands before the training's command: as
root, which may read every file, take the one above. One JSON line; exit code 1 where a list or a tensor is not as it
must be.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from mst_pretrain.checkpoints.storage import load_checkpoint

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("truncated", "empty", "text", "unreadable", "vanishing")
BATCH, EPOCHS, REMOVED_AT, INTERVAL = 20, 2, 10, 25
CONFIG = """
_base_ = {base!r}
custom_imports = dict(imports=["mst_pretrain", "remove_files"])
data_root = {images!r}
model = dict(
    backbone=dict(name="vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=16, depth=1, num_heads=2),
    head=dict(prototypes=24, hidden_dim=16, bottleneck_dim=8),
    decoder=dict(width=8, min_width=4),
)
train_dataloader = dict(
    batch_size={batch},
    num_workers=2,
    pin_memory=False,
    dataset=dict(
        data_root=data_root,
        check=False,
        crops=dict(global_crops=[dict(size=32), dict(size=32)], local_crop=dict(size=16), local_count=1),
    ),
)
train_cfg = dict(max_epochs={epochs})
default_hooks = dict(
    checkpoint=dict(interval={interval}, max_keep_ckpts=-1), watch=dict(max_bad_share=0.05), logger=dict(interval=50)
)
custom_hooks = [dict(type="RemoveFiles")]
"""
# Imported by the config: files that the first steps have used are removed at a step of the first epoch.
REMOVE_FILES = """
from pathlib import Path
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

@HOOKS.register_module()
class RemoveFiles(Hook):
    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == {removed_at}:
            for name in Path({listing!r}).read_text().splitlines():
                Path(name).unlink(missing_ok=True)
"""


def draw_images(folder: Path, count: int) -> list[Path]:
    """JPEGs of colour noise in 20 folders."""
    paths = []
    for index in range(count):
        path = folder / f"{index % 20:02}" / f"{index:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(index).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((80, 60)).save(path)
        paths.append(path)
    return sorted(paths)


def damage(path: Path, kind: str) -> None:
    """Break a file; ``vanishing`` ones are left for the hook."""
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("<html>not found</html>")
    elif kind == "unreadable":
        path.chmod(0)


def prepare(folder: Path, count: int) -> dict[Path, str]:
    """Images, config and module below a folder; the broken ones with their kind."""
    paths = draw_images(folder / "images", count)
    order = torch.randperm(
        count, generator=torch.Generator().manual_seed(0)
    ).tolist()  # of the sampler, seed 0
    used_first = [paths[index] for index in order[: BATCH * REMOVED_AT // 2]]
    chooser, each = random.Random(0), count // 50 // len(KINDS)
    vanishing = sorted(chooser.sample(used_first, each))
    others = chooser.sample([path for path in paths if path not in vanishing], each * (len(KINDS) - 1))
    broken = {path: KINDS[place % (len(KINDS) - 1)] for place, path in enumerate(others)}
    for path, kind in broken.items():
        damage(path, kind)
    (folder / "vanishing.txt").write_text("\n".join(map(str, vanishing)))
    settings = {"batch": BATCH, "epochs": EPOCHS, "interval": INTERVAL, "images": str(folder / "images")}
    base = str(ROOT / "configs/_base_/mst_pretrain.py")
    (folder / "toy.py").write_text(CONFIG.format(base=base, **settings))
    module = REMOVE_FILES.format(removed_at=REMOVED_AT, listing=str(folder / "vanishing.txt"))
    (folder / "remove_files.py").write_text(module)
    return broken | dict.fromkeys(vanishing, "vanishing")


def begin(folder: Path, name: str, prefix: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Start the training in a new process group."""
    paths = f"{folder}{os.pathsep}{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths, "HOME": str(folder)}
    command = [sys.executable, "tools/train.py", str(folder / "toy.py"), "--work-dir", str(folder / name)]
    with open(folder / f"{name}.log", "ab") as log:
        return subprocess.Popen(
            [*shlex.split(prefix), *command, *arguments],
            cwd=ROOT,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def kill_after(process: subprocess.Popen[bytes], checkpoint: Path) -> None:
    """SIGKILL to the whole group, at a random moment of the second after a checkpoint appears."""
    while not checkpoint.exists() and process.poll() is None:
        time.sleep(0.01)
    time.sleep(random.Random(1).uniform(0, 1))
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def main() -> int:
    """The undisturbed run, the killed and resumed one, the comparison."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--prefix", default="", help="what stands before the training's command")
    args = parser.parse_args()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        runs = {}
        for run in ("whole", "killed"):  # each on its own copy, since it removes files
            folder = Path(name, "same")
            broken = prepare(folder, args.images)
            process = begin(folder, run, args.prefix)
            if run == "killed":
                kill_after(process, folder / run / f"iter_{2 * INTERVAL}.pth")
                step = load_checkpoint(folder / run / "latest.pth")["meta"]["iter"]
                results["killed"] = {"code": process.returncode, "resumed_at": step}
                process = begin(folder, run, args.prefix, "--resume")
            if process.wait() != 0:
                print(Path(folder, f"{run}.log").read_text()[-3000:], file=sys.stderr)
                return 1
            lines = [line.split("\t") for line in (folder / run / "bad_images.txt").read_text().splitlines()]
            final = load_checkpoint(folder / run / "latest.pth")
            runs[run] = (lines, final["state_dict"], final["meta"]["iter"])
            kinds = {kind: sum(broken[Path(line[0])] == kind for line in lines) for kind in KINDS}
            exact = sorted(map(str, broken)) == [line[0] for line in lines]
            results[run] = results.get(run, {}) | {
                "listed": len(lines),
                "exact": exact,
                **kinds,
                "steps": runs[run][2],
            }
            for path in folder.rglob("*"):
                path.chmod(0o700)
            folder.rename(Path(name, run))
    same_list = runs["whole"][0] == runs["killed"][0]
    states = [runs[run][1] for run in ("whole", "killed")]
    differ = [key for key, value in states[0].items() if not torch.equal(value, states[1][key])]
    results |= {"images": args.images, "same_list": same_list, "tensors_that_differ": len(differ)}
    print(json.dumps({"benchmark": "broken_images", **results}))
    right = same_list and not differ and all(results[run]["exact"] for run in ("whole", "killed"))
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())

"""A limit of file sizes, and a full file system, while checkpoints are saved: what is said, kept, and resumed.

    python tests/qa/full_disk.py [--room 60000]

A toy pretraining and a toy fine-tuning meet (1) a limit of file sizes (RLIMIT_FSIZE) and (2) a small file system that
is filled (tmpfs, in a mount namespace of its own: ``unshare -rm``), each for two checkpoints in a row, and for good.
Printed are the training's own lines about it, the checkpoints that lie there at the end, and the comparison of the
final weights, optimizer and lines of numbers with the undisturbed run's. The last line is JSON; exit code 1 where a
value differs, a temporary file stays, or a run ended otherwise than it should.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from mst_pretrain.checkpoints.storage import load_checkpoint  # noqa: E402
from tests.forked import Forked  # noqa: E402
from tests.qa.kill_and_resume import FINE_TUNING, LOOPS, draw_data  # noqa: E402
from tests.qa.kill_in_phases import STEPS, differences  # noqa: E402
from tests.qa.stop_and_resume import CONFIG  # noqa: E402

VARIABLE, FILLER, INSIDE = "MST_TEST_DISK", "filler", "MST_TEST_INSIDE"
SMALL = "16m"  # of the file system
INTERVAL, FIRST = 4, 9  # steps between two checkpoints; the first step without space
LASTS = {"for two checkpoints": 17, "for good": STEPS}  # the last step without space
MORE = """
run_folder = True
custom_imports = dict(imports={imports}, allow_failed_imports=False)
custom_hooks = [dict(type="DiskHook")]
"""
LOOP = "fine-tuning by iterations"


def write_configs(folder: Path) -> dict[str, Path]:
    """The configs of both trainings."""
    draw_data(folder / "data")
    base = str(ROOT / "configs/_base_/mst_pretrain.py")
    pretraining = CONFIG.format(base=base, images=str(folder / "data/images"), batch=4, steps=STEPS)
    pretraining = pretraining.replace("interval=25", f"interval={INTERVAL}") + "evaluation = None\n"
    sampler, loop = LOOPS[LOOP]
    tuning = FINE_TUNING.format(
        root=str(folder / "data"),
        sampler=sampler,
        loop={**loop, "max_iters": STEPS},
        by_epoch=False,
        workers=2,
        batch=4,
        steps=STEPS,
        interval=INTERVAL,
    )
    modules = {
        "pretraining": ["mst_pretrain"],
        "fine-tuning": ["mst_transfer", "mst_transfer.training.loops"],
    }
    paths = {}
    for name, text in (("pretraining", pretraining), ("fine-tuning", tuning)):
        paths[name] = folder / f"{name}.py"
        paths[name].write_text(text + MORE.format(imports=[*modules[name], "tests.qa.disk_points"]))
    return paths


def train(config: Path, work_dir: Path, *arguments: str, disk: str = "") -> tuple[int, list[str]]:
    """Exit code of a training, and its lines about checkpoints."""
    run = Forked("train", str(config), "--work-dir", str(work_dir), *arguments, **{VARIABLE: disk})
    code, output = run.result()
    told = [line for line in output.splitlines() if "R11" in line]
    if code and not told:
        raise RuntimeError(output[-3000:])
    return code, told


def case(config: Path, work_dir: Path, kind: str, last: int, room: int, whole: Path) -> bool:
    """One training without space; prints what came of it, and says whether all is right."""
    code, told = train(config, work_dir, disk=f"{kind}:{FIRST}:{last}:{room}")
    for line in told:
        print(textwrap.fill(line, 110, initial_indent="    said: ", subsequent_indent="          "))
    last_file = work_dir / "checkpoints/last.pth"
    kept, expected = load_checkpoint(last_file)["meta"]["iter"], 0 if last < STEPS else 2
    found = sorted(path for path in work_dir.rglob("*") if path.suffix in (".pth", ".part"))
    sizes = ", ".join(f"{path.name} {path.stat().st_size:,} bytes" for path in found)
    print(f"    exit {code}; on the disk: {sizes}; last.pth is of step {kept}")
    (work_dir.parent / FILLER).unlink(missing_ok=True)
    if code:
        resumed, _ = train(config, work_dir, "--resume")
        print(f"    resumed with space: exit {resumed}")
        code, kept = code + resumed, load_checkpoint(last_file)["meta"]["iter"]
    compared, differ = differences(whole, work_dir, True)
    words = ", ".join(f"{count} {part}" for part, count in compared.items())
    print(
        f"    {f'DIFFER: {dict(differ)}' if differ else 'equal to the undisturbed run'}: {words}", flush=True
    )
    parts = [path for path in found if path.suffix == ".part"]
    return code == expected and kept == STEPS and not differ and not parts and len(told) >= 2


def check(folder: Path, room: int) -> dict[str, Any]:
    """All cases; they lie in a small file system of their own below ``folder``."""
    small, wrong, cases = folder / "small", 0, 0
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SMALL}", "tmpfs", str(small)], check=True)
    try:
        for name, config in write_configs(folder).items():
            whole = folder / f"whole-{name}"
            train(config, whole)
            for kind in ("limit", "full"):
                for title, last in LASTS.items():
                    print(f"{name}, {kind} {title}", flush=True)
                    work_dir = small / f"{name}-{kind}-{last}"
                    wrong += not case(config, work_dir, kind, last, room, whole)
                    cases += 1
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)
    return {"check": "full_disk", "cases": cases, "wrong": wrong}


def main() -> int:
    """All cases, in a mount namespace of their own; 1 where one is not right."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--room", type=int, default=60_000, help="bytes that are left (default: 60000)")
    args = parser.parse_args()
    if os.environ.get(INSIDE) != "1":
        os.execvpe("unshare", ["unshare", "-rm", sys.executable, *sys.argv], {**os.environ, INSIDE: "1"})
    with tempfile.TemporaryDirectory() as name:
        result = check(Path(name), args.room)
    print(json.dumps(result))
    return 1 if result["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())

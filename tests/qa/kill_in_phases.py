"""45 kills of a pretraining in nine phases: is every resumed run the undisturbed one, bit for bit?

    python tests/qa/kill_in_phases.py [--phases PHASE ...] [--signals SIGNAL ...] [--seed 0]

A toy pretraining with two workers, augmentation and k-NN runs undisturbed, as a run folder and in MMEngine's layout.
Then it is started again for every phase and signal, sends itself the signal in the middle of that phase (see
``kill_points.py``), and is resumed to the end. Compared are all tensors of the last checkpoint, the optimizer's too,
and every number of every line of the log that is no time. One line a kill, then one of JSON; exit code 1 where a value
differs, a signal was not sent, the exit code was another than the signal's, or a process is left.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from mst_pretrain.checkpoints.storage import load_checkpoint  # noqa: E402
from mst_pretrain.runtime.errors import STOPPED  # noqa: E402
from mst_pretrain.runtime.run_files import newest_checkpoint  # noqa: E402
from mst_pretrain.training.run_log import TIMES  # noqa: E402
from tests.forked import Forked  # noqa: E402
from tests.qa.stop_and_resume import CONFIG, draw_images  # noqa: E402

VARIABLE = "MST_TEST_KILL"  # PHASE:STEP:SIGNAL for kill_points.py
BEGINNINGS = (
    "before all",
    "with the model built",
    "with the first weights saved",
)  # "steps" of the phase start
STEPS, INTERVAL, MEASURED = (
    24,
    5,
    6,
)  # steps of a run, between two checkpoints, between two measurements of k-NN
SIGNALS = ["SIGKILL", "SIGKILL", "SIGKILL", "SIGTERM", "SIGUSR1"]
# the steps that each phase has
PHASES: dict[str, range] = {
    "start": range(len(BEGINNINGS)),
    **{name: range(2, STEPS) for name in ("data", "forward", "backward", "optimizer", "teacher")},
    "checkpoint write": range(INTERVAL, STEPS, INTERVAL),
    "link": range(INTERVAL, STEPS, INTERVAL),
    "evaluation": range(MEASURED, STEPS + 1, MEASURED),
}
MORE = """
run_folder = {tidy}
custom_imports = dict(imports=["mst_pretrain", "tests.qa.kill_points"], allow_failed_imports=False)
custom_hooks = [dict(type="KillHook")]
evaluation = dict(knn={labelled!r}, every_epochs={every})
"""
UNTOLD = {*TIMES, "time", "data_time", "memory"}  # of a line: differ from start to start
ANSWER = 15.0  # seconds after which no worker of a killed process may live


def write_configs(folder: Path) -> dict[bool, Path]:
    """The config of a run folder and that of MMEngine's layout."""
    draw_images(folder / "images")
    for name in ("a", "b"):
        draw_images(folder / "labelled" / name)
    base, paths = str(ROOT / "configs/_base_/mst_pretrain.py"), {}
    for tidy in (True, False):
        text = CONFIG.format(base=base, images=str(folder / "images"), batch=4, steps=STEPS)
        text = text.replace("checkpoint=dict(interval=25)", f"checkpoint=dict(interval={INTERVAL})")
        every = MEASURED / 4  # 17 images are 4 steps of 4
        paths[tidy] = folder / f"{'tidy' if tidy else 'plain'}.py"
        paths[tidy].write_text(text + MORE.format(tidy=tidy, labelled=str(folder / "labelled"), every=every))
    return paths


def train(config: Path, work_dir: Path, *arguments: str, kill: str = "") -> tuple[int, str]:
    """Exit code and output of a training."""
    run = Forked("train", str(config), "--work-dir", str(work_dir), *arguments, **{VARIABLE: kill})
    GROUPS.append(int(run.process.pid or 0))
    return run.result()


GROUPS: list[int] = []  # process groups of all trainings


def tensors(node: Any, name: str = "") -> dict[str, Tensor]:
    """All tensors of nested dictionaries and lists, by path."""
    if isinstance(node, Tensor):
        return {name: node}
    parts = (
        node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, (list, tuple)) else ()
    )
    return {path: value for key, part in parts for path, value in tensors(part, f"{name}.{key}").items()}


def lines_of(work_dir: Path, tidy: bool) -> list[Any]:
    """The numbers of the log that are no times; without a run folder each start has its own file."""
    names = ["metrics.jsonl"] if tidy else ["evaluations.jsonl"]
    lines = [json.loads(text) for name in names for text in (work_dir / name).read_text().splitlines()]
    scalars: dict[int, Any] = {}
    for path in sorted(work_dir.glob("*/vis_data/scalars.json"), key=lambda path: path.stat().st_mtime):
        whole = path.read_text().rpartition("\n")[0]  # a killed run leaves a part of a line
        scalars |= {line["step"]: line for line in map(json.loads, whole.splitlines()) if "loss" in line}
    found = [*lines, *(scalars[step] for step in sorted(scalars))]
    return [{key: value for key, value in line.items() if key not in UNTOLD} for line in found]


def differences(one: Path, other: Path, tidy: bool) -> tuple[Counter[str], Counter[str]]:
    """Tensors and lines that were compared and that differ, by what they are."""
    compared: Counter[str] = Counter()
    differ: Counter[str] = Counter()
    states = [load_checkpoint(newest_checkpoint(path, tidy)) for path in (one, other)]
    parts = [{**tensors(state["state_dict"]), **tensors(state["optimizer"], "optimizer")} for state in states]
    for name in {**parts[0], **parts[1]}:
        kind = "center" if "center" in name else name.lstrip(".").partition(".")[0]
        kind = kind if kind in ("student", "teacher", "center", "optimizer") else "others"
        compared[kind] += 1
        same = all(name in part for part in parts) and torch.equal(parts[0][name], parts[1][name])
        differ[kind] += not same
    lines = [lines_of(path, tidy) for path in (one, other)]
    compared["lines"] = len(lines[0])
    differ["lines"] += lines[0] != lines[1]
    return compared, +differ


def kill(
    phase: str, step: int, name: str, config: Path, folder: Path, whole: Path, tidy: bool
) -> dict[str, Any]:
    """One training that is killed and resumed, compared with the undisturbed one."""
    code, output = train(config, folder, kill=f"{phase}:{step}:{name}")
    told = next((line for line in output.splitlines() if line.startswith(f"phase {phase},")), "")
    newest = newest_checkpoint(folder, tidy)
    kept = int(load_checkpoint(newest)["meta"]["iter"]) if newest.is_file() else 0
    expected = -signal.SIGKILL if name == "SIGKILL" else STOPPED
    resumed, after = train(config, folder, "--resume")
    if resumed:
        raise RuntimeError(f"the run killed in {told} cannot be resumed:\n{after[-3000:]}")
    compared, differ = differences(whole, folder, tidy)
    good = bool(told) and code == expected and not differ and list(folder.rglob("*.kept")) == []
    words = ", ".join(f"{count} {kind}" for kind, count in compared.items())
    print(
        f"{told or f'NOT SENT: phase {phase}, step {step}'}; exit {code}; resumed from step {kept}; "
        f"{f'DIFFER: {dict(differ)}' if differ else 'equal'} of {words}",
        flush=True,
    )
    return {"phase": phase, "signal": name, "good": good, "code": code, "kept": kept, "differ": dict(differ)}


def left_processes() -> int:
    """Process groups of trainings in which something lives although all have ended."""
    deadline = time.monotonic() + ANSWER
    while True:
        alive = 0
        for group in GROUPS:
            try:
                os.killpg(group, 0)
                alive += 1
            except ProcessLookupError:
                pass
        if not alive or time.monotonic() > deadline:
            return alive
        time.sleep(0.2)


def check(folder: Path, kills: list[tuple[str, int, str]]) -> dict[str, Any]:
    """All kills: what came of them.

    Args:
        folder: New or empty.
        kills: Phase, step and signal of each.
    """
    configs, whole, results = write_configs(folder), {}, []
    for number, (phase, step, name) in enumerate(kills):
        tidy = phase != "link"  # only MMEngine's layout has a latest.pth that is a link
        if tidy not in whole:
            whole[tidy] = folder / f"whole-{tidy}"
            code, output = train(configs[tidy], whole[tidy])
            if code:
                raise RuntimeError(output[-3000:])
        work_dir = folder / f"killed-{number}"
        results.append(kill(phase, step, name, configs[tidy], work_dir, whole[tidy], tidy))
    wrong, left = sum(not result["good"] for result in results), left_processes()
    return {"check": "kill_in_phases", "kills": len(results), "wrong": wrong, "processes_left": left}


def main() -> int:
    """Kill in every phase by every signal; 1 where something differs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--phases", nargs="+", choices=list(PHASES), default=list(PHASES))
    parser.add_argument("--signals", nargs="+", choices=sorted(set(SIGNALS)), default=SIGNALS)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    moments, began, kills = random.Random(args.seed), time.monotonic(), []
    for phase in args.phases:
        steps = list(PHASES[phase])
        drawn = steps if phase == "start" else moments.sample(steps, min(len(steps), len(args.signals)))
        kills += [(phase, drawn[i % len(drawn)], name) for i, name in enumerate(args.signals)]
    with tempfile.TemporaryDirectory() as name:
        result = check(Path(name), kills)
    print(json.dumps({**result, "seconds": round(time.monotonic() - began)}))
    return 1 if result["wrong"] or result["processes_left"] else 0


if __name__ == "__main__":
    sys.exit(main())

"""NNODES=1:2: a second machine joins a running training and leaves it again. Does it go on, and as what?

    python tests/qa/machines_come_and_go.py [--seed 0]

Two torchrun on this computer stand for two machines, with one process each (gloo, on the CPU). The first one trains a
toy pretraining alone; the second one joins, so that both go on together with half the images each; then the second one
is ended by SIGTERM, and the first one goes on alone. The end is compared with an undisturbed run of one process: sums
of floating-point numbers have another order in between, so the distance of the weights must be below ``TOLERANCE`` of
the way that the run has gone. Printed: the lines that say what changed, and one JSON line; exit code 1 where it is not
so, or the run never was on two.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mst_pretrain.checkpoints.storage import load_checkpoint

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from tests.qa.kill_and_resume import PRETRAIN, TOLERANCE, distance, draw_data, finish, weights_of  # noqa: E402
from tests.qa.stop_and_resume import free_port  # noqa: E402

STEPS, INTERVAL, BATCH = 400, 20, 4
TOGETHER = "and goes on with 2 (processes)"


def machine(config: Path, work_dir: Path, port: str, log: Path) -> subprocess.Popen[bytes]:
    """One torchrun that joins the others at the port."""
    environment = {**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1", "PORT": port}
    with log.open("wb") as output:
        return subprocess.Popen(
            ["bash", "tools/dist_train.sh", str(config), "1", "--work-dir", str(work_dir)],
            cwd=ROOT,
            env={**environment, "NNODES": "1:2", "MAX_RESTARTS": "3", "PYTHONUNBUFFERED": "1"},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def wait_until(what: object, process: subprocess.Popen[bytes], log: Path, seconds: float = 240) -> None:
    """Wait until a condition holds.

    Raises:
        RuntimeError: It does not, in time.
    """
    end = time.monotonic() + seconds
    while not what():  # type: ignore[operator]
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"{process.poll()}\n{log.read_text()[-4000:]}")
        time.sleep(0.05)


def step_of(work_dir: Path) -> int:
    """The newest step in the log of a training."""
    logs = [path.read_text().splitlines() for path in work_dir.glob("*/vis_data/scalars.json")]
    steps = [json.loads(line)["step"] for lines in logs for line in lines if line.endswith("}")]
    return max(steps, default=0)


def main() -> int:
    """One undisturbed run, one with two visits, one comparison."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw_data(folder)
        base, images = str(ROOT / "configs/_base_/mst_pretrain.py"), str(folder / "images")
        config, numbers = (
            folder / "toy.py",
            {"batch": BATCH, "steps": STEPS, "interval": INTERVAL, "workers": 0},
        )
        text = PRETRAIN.format(base=base, images=images, prefetch=None, **numbers)
        config.write_text(text.replace("max_epochs=40", "max_epochs=400"))
        whole = weights_of(finish(config, folder / "whole", 1))
        work_dir, port = folder / "visited", free_port()
        logs = [folder / "first.log", folder / "second.log"]
        first = machine(config, work_dir, port, logs[0])
        second = None
        try:
            wait_until(lambda: step_of(work_dir) > INTERVAL, first, logs[0])
            second = machine(config, work_dir, port, logs[1])
            both = lambda: "".join(log.read_text() for log in logs)  # noqa: E731
            wait_until(lambda: TOGETHER in both(), first, logs[0])
            joined = step_of(work_dir)
            wait_until(lambda: step_of(work_dir) > joined + INTERVAL, first, logs[0])
            left = step_of(work_dir)
            second.send_signal(signal.SIGTERM)
            code = first.wait(timeout=400)
        finally:
            for process in (first, second):
                if process is not None and process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
        latest = work_dir / "latest.pth"
        start = weights_of(work_dir / "initial.pth")
        apart = distance(weights_of(latest), whole) / distance(start, whole)
        said = [
            line for line in both().splitlines() if line.startswith(("This run began", "error", "the proc"))
        ]
        steps = load_checkpoint(latest)["meta"]["iter"]
    print(*said, sep="\n", file=sys.stderr)
    result = {"check": "machines_come_and_go", "joined_after": joined, "left_after": left, "code": code}
    print(json.dumps({**result, "steps": steps, "apart": apart}))
    return 0 if code == 0 and steps == STEPS and apart < TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())

"""Tools as processes that import nothing: forked from one that has imported it all and done nothing else.

Cold starts of a tool, and the scripts that start several processes, are tested elsewhere.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import socket
import sys
import tempfile
from functools import cache
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
IMPORTED = ["mst_pretrain.training.runner", "mst_transfer.training.loops", "mst_transfer.training.checks"]
IMPORTED += ["mmdet.models", "mmseg.models", "mmseg.datasets"]
SECONDS = 300.0


@cache
def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("PYTHONPATH", str(ROOT))
        forkserver.ensure_running()
    return context


class Forked:
    """A tool that runs.

    Args:
        tool: Its name, ``train`` for ``tools/train.py``, or the path of any file of Python.
        arguments: What would stand behind it on the command line.
        folder: Where it runs.
        environment: Variables beside the present ones.
    """

    def __init__(self, tool: str, *arguments: str, folder: Path = ROOT, **environment: str) -> None:
        with tempfile.NamedTemporaryFile(delete=False) as log:
            self.log = Path(log.name)
        path = tool if tool.endswith(".py") else f"{ROOT}/tools/{tool}.py"
        given = (path, arguments, self.log, folder, {**os.environ, **environment})
        self.process = _context().Process(target=_run, args=given)
        self.process.start()

    @property
    def ended(self) -> bool:
        return self.process.exitcode is not None

    def kill(self) -> None:
        """At once, with all processes that it started."""
        assert self.process.pid is not None
        os.killpg(self.process.pid, signal.SIGKILL)

    def result(self) -> tuple[int, str]:
        """Its exit code, negative for a signal, and all that it wrote."""
        self.process.join(SECONDS)
        if not self.ended:
            self.kill()
            self.process.join()
        code, output = self.process.exitcode, self.log.read_text()
        self.log.unlink()
        assert code is not None
        return code, output


def output_of(tool: str, *arguments: str, **environment: str) -> str:
    """What a tool wrote that must have ended well."""
    code, output = Forked(tool, *arguments, **environment).result()
    assert code == 0, output[-4000:]
    return output


def two(tool: str, *arguments: str, **environment: str) -> list[Forked]:
    """The same tool as two processes, as torchrun would start them."""
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), **environment}
    return [Forked(tool, *arguments, RANK=rank, LOCAL_RANK=rank, **common) for rank in ("0", "1")]


def outputs_of(processes: list[Forked]) -> list[str]:
    """What each of several wrote that must all have ended well."""
    results = [process.result() for process in processes]
    assert not any(code for code, _ in results), "\n".join(output[-4000:] for _, output in results)
    return [output for _, output in results]


def two_workers(file: str, folder: Path) -> list[Forked]:
    """A test's own file as two processes, which are given a folder and their rank."""
    return [Forked(file, str(folder), rank) for rank in ("0", "1")]


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def _run(path: str, arguments: tuple[str, ...], log: Path, folder: Path, environment: dict[str, str]) -> None:
    os.setsid()
    multiprocessing.set_start_method("fork", force=True)  # as in a process that was started by its name
    with log.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.path[:0] = [os.path.dirname(path), *environment.get("PYTHONPATH", "").split(os.pathsep)]
    sys.argv = [path, *arguments]
    runpy.run_path(path, run_name="__main__")

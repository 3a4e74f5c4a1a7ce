"""Nothing in the project runs what a file says: by its source, and by a trace of tools at work."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.forked import output_of
from tests.test_layout import CODE, ROOT, modules

# What runs code from data, a shell, or unpacks to names that an archive chose. Tests of hostile files are not searched.
UNSAFE = {
    *("pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.load", "marshal.loads", "shelve.open"),
    *(
        "dill.load",
        "dill.loads",
        "joblib.load",
        "cloudpickle.load",
        "cloudpickle.loads",
        "pandas.read_pickle",
    ),
    *(
        "yaml.load",
        "yaml.unsafe_load",
        "yaml.full_load",
        "yaml.load_all",
        "os.system",
        "os.popen",
        "pty.spawn",
    ),
    *("subprocess.getoutput", "subprocess.getstatusoutput", "shutil.unpack_archive", "torch.hub.load"),
    *(
        "torch.hub.load_state_dict_from_url",
        "torch.utils.model_zoo.load_url",
        "torch.jit.load",
        "runpy.run_path",
    ),
    *("eval", "exec", "compile", "__import__"),
}
METHODS = {"extract", "extractall"}  # of archives
# File, what it calls, and why that is not data's
ALLOWED = {
    ("mst_toolkit/cli.py", "runpy.run_path"): "our own tools, by names that stand in it",
    ("mst_pretrain/runtime/value_types.py", "eval"): "annotations of functions of installed code",
    (
        "mst_pretrain/checkpoints/storage.py",
        "torch.load",
    ): "the one reader; weights_only unless --trusted is given",
}
CONFIG_READERS = {  # configs are code: docs/security.md
    "mst_pretrain/runtime/config.py",
    "mst_toolkit/recipes.py",
    "examples/quickstart/panel.py",
    "examples/quickstart/sheet.py",
    "examples/quickstart/ship.py",
    "benchmarks/gpu_smoke.py",
}
SHORT = {"np": "numpy", "pd": "pandas"}


def dotted(node: ast.expr) -> str:
    """``np.load`` as ``numpy.load``; empty for what is not a name."""
    if isinstance(node, ast.Name):
        return SHORT.get(node.id, node.id)
    inner = dotted(node.value) if isinstance(node, ast.Attribute) else ""
    return f"{inner}.{node.attr}" if inner and isinstance(node, ast.Attribute) else ""


def faults(path: str, call: ast.Call) -> Iterator[str]:
    """What is unsafe in one call."""
    name, method = dotted(call.func), call.func.attr if isinstance(call.func, ast.Attribute) else ""
    given = {word.arg: word.value for word in call.keywords}
    if (name in UNSAFE or method in METHODS or name == "torch.load") and (path, name) not in ALLOWED:
        yield name or method
    if name == "numpy.load" and ast.unparse(given.get("allow_pickle", ast.Constant(False))) != "False":
        yield "numpy.load(allow_pickle=...)"
    if "shell" in given and ast.unparse(given["shell"]) != "False":
        yield "shell=..."
    if "trust_remote_code" in given and ast.unparse(given["trust_remote_code"]) != "False":
        yield "trust_remote_code=..."
    if name == "Config.fromfile" and path not in CONFIG_READERS:
        yield name


def test_no_source_loads_unsafely() -> None:
    """A line of the project would run code of a checkpoint, a data set or a message from the net."""
    found = [
        f"{path}:{node.lineno}: {fault}"
        for path, tree in modules(*CODE)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        for fault in faults(path.as_posix(), node)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("torch.load(path)", "torch.load"),
        ("np.load(path, allow_pickle=True)", "numpy.load(allow_pickle=...)"),
        ("subprocess.run(text, shell=True)", "shell=..."),
        ("archive.extractall(folder)", "archive.extractall"),
        ("yaml.load(text)", "yaml.load"),
        ("pickle.loads(content)", "pickle.loads"),
        ("eval(text)", "eval"),
        ("Config.fromfile(path)", "Config.fromfile"),
        ("load_dataset(name, trust_remote_code=True)", "trust_remote_code=..."),
    ],
)
def test_the_search_finds_each_kind(line: str, fault: str) -> None:
    """The test above could not fail."""
    call = ast.parse(line).body[0]
    assert isinstance(call, ast.Expr) and isinstance(call.value, ast.Call)
    assert fault in list(faults("mst_pretrain/new.py", call.value))


def test_the_one_reader_reads_weights_alone() -> None:
    """The exception that the search makes would be one for everything."""
    ((_, tree),) = [
        (p, t) for p, t in modules("mst_pretrain") if p.as_posix().endswith("checkpoints/storage.py")
    ]
    loads = [
        node for node in ast.walk(tree) if isinstance(node, ast.Call) and dotted(node.func) == "torch.load"
    ]
    assert [
        ast.unparse(word.value) for call in loads for word in call.keywords if word.arg == "weights_only"
    ] == ["not trusted"]


def test_scripts_quote_what_they_are_given() -> None:
    """A path with a space, a star or a semicolon would become several words or a command in tools/*.sh."""
    for path in sorted((ROOT / "tools").glob("*.sh")):
        text = path.read_text()
        assert "set -euo pipefail" in text or path.name in ("launch_env.sh", "slurm_job.sh"), path
        for number, line in enumerate(text.splitlines(), 1):
            code = line.partition(" #")[0]
            assert not code.lstrip().startswith(("eval ", "bash -c", "sh -c")), f"{path}:{number}"
            for unquoted in ("$@", "$1", "$2", "$3", "$4", "${@"):
                outside = "".join(code.split('"')[::2])
                assert unquoted not in outside or "[[" in code or "case" in code, (
                    f"{path}:{number}: {unquoted}"
                )


@pytest.mark.parametrize(
    ("tool", "words"), [("slurm_train.sh", ["gpu", "job", "c.py", "run"]), ("slurm_job.sh", ["c.py", "run"])]
)
def test_scripts_calculate_with_numbers_alone(tool: str, words: list[str], tmp_path: Path) -> None:
    """Bash runs a command that stands in a variable it calculates with: GPUS='a[$(command)]'."""
    trace = tmp_path / "trace"
    odd = f"a[$(touch {trace})]"
    (tmp_path / "srun").write_text("#!/bin/sh\n")
    (tmp_path / "srun").chmod(0o755)
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "MST_ROOT": str(ROOT),
        "PYTHON": sys.executable,
    }
    for name in ("GPUS", "SLURM_JOB_ID", "LOST_RETRIES", "SLURM_RESTART_COUNT"):
        subprocess.run(
            ["bash", str(ROOT / "tools" / tool), *words],
            env={**environment, name: odd},
            cwd=tmp_path,
            capture_output=True,
        )
        assert not trace.exists(), name
    done = subprocess.run(
        ["bash", "-c", f". {ROOT}/tools/launch_env.sh; whole GPUS '8x'"], capture_output=True, text=True
    )
    assert done.returncode == 2 and done.stderr == "error: GPUS: a whole number is expected, got '8x'\n"


TRACE = """
import functools, json, runpy, sys
from pathlib import Path

import numpy, torch, yaml

report, seen, tools = sys.argv[1], [], json.loads(sys.argv[2])

def spied(module, name, of):
    original = getattr(module, name)
    @functools.wraps(original)
    def call(*args, **kwargs):
        seen.append([f"{module.__name__}.{name}", of(args, kwargs)])
        return original(*args, **kwargs)
    setattr(module, name, call)

spied(torch, "load", lambda a, k: bool(k.get("weights_only")))
spied(numpy, "load", lambda a, k: not k.get("allow_pickle"))
spied(yaml, "load", lambda a, k: "Safe" in str(a[1:] or k.get("Loader")))
WATCHED = ("pickle.find_class", "os.system", "subprocess.Popen", "shutil.unpack_archive", "os.posix_spawn")
sys.addaudithook(lambda event, values: event in WATCHED and seen.append([event, repr(values)[:200]]))
try:
    for tool, *words in tools:
        sys.argv = [tool, *words]
        try:
            runpy.run_path(tool, run_name="__main__")
        except SystemExit as end:
            assert end.code in (None, 0, 1), (tool, end.code)  # 1: inspect_checkpoint found a weight of zeros
finally:
    Path(report).write_text(json.dumps(seen))
"""
CONFIG = """
_base_ = {base!r}
data_root = {images!r}
model = dict(
    backbone=dict(name="vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=16, depth=2, num_heads=2),
    head=dict(prototypes=24, hidden_dim=16, bottleneck_dim=8),
    decoder=dict(width=8, min_width=4),
)
train_dataloader = dict(batch_size=4, num_workers=0, persistent_workers=False, pin_memory=False, dataset=dict(
    data_root=data_root, crops=dict(global_crops=[dict(size=32), dict(size=32)],
    local_crop=dict(size=16), local_count=1)))
train_cfg = dict(max_epochs=8, max_iters={iterations})
"""


def test_tools_at_work_load_safely(tmp_path: Path) -> None:
    """A library that a tool calls would run a file's code, by a way that no search of our source shows."""
    images, run = tmp_path / "images" / "a", tmp_path / "run"
    images.mkdir(parents=True)
    for number in range(8):
        pixels = np.random.default_rng(number).integers(0, 255, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(images / f"{number}.jpg")
    trace = tmp_path / "trace.py"
    trace.write_text(TRACE)
    base = str(ROOT / "configs/_base_/mst_pretrain.py")
    for iterations in (2, 4):
        config = CONFIG.format(base=base, images=str(images.parent), iterations=iterations)
        (tmp_path / f"c{iterations}.py").write_text(config)

    def traced(*tools: list[str]) -> list[list[object]]:
        told = json.dumps([[f"{ROOT}/tools/{tool}.py", *words] for tool, *words in tools])
        output_of(str(trace), str(tmp_path / "seen.json"), told, MST_CACHE=str(tmp_path / "cache"))
        return list(json.loads((tmp_path / "seen.json").read_text()))

    latest = str(run / "latest.pth")
    seen = traced(["train", str(tmp_path / "c2.py"), "--work-dir", str(run)])
    resumed = traced(
        ["train", str(tmp_path / "c4.py"), "--work-dir", str(run), "--resume"],
        ["inspect_checkpoint", latest],
        ["convert_checkpoint", latest, str(tmp_path / "new.safetensors")],
    )
    assert resumed.count(["torch.load", True]) >= 3  # or nothing was traced
    # MMEngine asks gcc and nvcc, and we git, for their versions: processes whose words are no user's
    asked = [e for e in (*seen, *resumed) if e[0] == "subprocess.Popen" and str(tmp_path) not in str(e[1])]
    assert [entry for entry in (*seen, *resumed) if entry[1] is not True and entry not in asked] == []

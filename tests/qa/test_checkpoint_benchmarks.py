"""The three scripts that show what conversions and writers do: they work at toy size, and their checks can fail."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save
from torch import Tensor

from mst_pretrain.checkpoints import storage as checkpoint_io
from mst_pretrain.checkpoints import timm_keys
from tests.qa import conversion_matrix, hostile_files, kill_while_writing

sys.path.insert(0, str(Path(__file__).parent))
from hostile_workshop import Case, Workshop


def matrix(tmp_path: Path, *arguments: str) -> tuple[int, dict[tuple[str, str], float]]:
    """Exit code and largest deviation of each (format, direction) of the tiny Swin."""
    out = tmp_path / "matrix.json"
    code = conversion_matrix.main(["--architectures", "swin-tiny-test", *arguments, "--out", str(out)])
    cells = json.loads(out.read_text())["cells"]
    found = {(c["format"], c["direction"]): max(c["deviation"].values()) for c in cells if "deviation" in c}
    return code, found


def test_the_matrix_compares(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The table would have no numbers, or call a network equal that was never run."""
    code, found = matrix(tmp_path, "--formats", "swin", "mmdet", "dino")
    assert code == 0
    assert set(found) == {("swin", "in"), ("mmdet", "in"), ("mmdet", "out")}
    assert all(value < 1e-5 for value in found.values()) and found["mmdet", "in"] > 0
    table = capsys.readouterr().out
    assert re.search(r"^\| swin \| 0.0e\+00, own reference \| - \|$", table, re.MULTILINE)
    assert re.search(r"^\| mmdet \| \S+, real library \| \S+, real library \|$", table, re.MULTILINE)
    assert re.search(r"^\| dino \| - \| - \|$", table, re.MULTILINE) and "- dino, Swin: " in table


def test_a_wrong_conversion_fails_the_matrix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Merged channels in the wrong order would be called a good conversion."""
    monkeypatch.setattr(timm_keys, "from_channels_first", lambda value: value)
    monkeypatch.setattr(timm_keys, "to_channels_first", lambda value: value)
    code, found = matrix(tmp_path, "--formats", "mmdet")
    assert code == 1
    assert found["mmdet", "in"] > 0.1 and found["mmdet", "out"] > 0.1
    assert "NOT all within 1e-05" in capsys.readouterr().out


def test_a_failed_conversion_fails_the_matrix(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A cell that could not be measured would leave the exit code at 0."""
    monkeypatch.setattr(timm_keys.Dialect, "to_timm", lambda self, state: ({}, list(state)))
    assert conversion_matrix.main(["--architectures", "vit-tiny-test", "--formats", "mmseg"]) == 1
    assert "**FAILED**, real library" in capsys.readouterr().out


def kill(tmp_path: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    """Exit code and the JSON line; nothing may stay in the folder."""
    common = ["--tool-kills", "0", "--megabytes", "5", "--dir", str(tmp_path)]
    code = kill_while_writing.main([*common, *arguments])
    assert list(tmp_path.iterdir()) == []
    return code, json.loads(capsys.readouterr().out)


def test_kills_land_and_tear_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Kills would be counted that hit nobody, or a good writer be called bad."""
    monkeypatch.setattr(kill_while_writing, "ATTEMPTS", 50)  # 5 MB are written in a moment
    code, found = kill(tmp_path, capsys, "--kills", "6")
    assert code == 0 and found["passed"]
    assert found["torn"] == 0 and found["landed"] == 6
    assert found["kills"] <= found["landed"] + found["too_late"] == found["old"] + found["new"]
    assert set(found["by"]) == {"save_safetensors", "save_atomic"}
    assert all(count["landed"] == 3 and count["recovered"] for count in found["by"].values())


def in_place(state: Mapping[str, Tensor], path: Path) -> None:
    """Truncates the destination and writes slowly; a temporary file beside it is only for show."""
    content = save(dict(state))
    show = path.with_name(path.name + ".part")
    with open(path, "wb") as stream:
        show.touch()
        for start in range(0, len(content), len(content) // 20):
            stream.write(content[start : start + len(content) // 20])
            stream.flush()
            time.sleep(0.05)  # on a busy machine the kill comes late
    show.unlink()


def at_once(state: Mapping[str, Tensor], path: Path) -> None:
    """The temporary file is renamed before it is complete."""
    content = save(dict(state))
    part = path.with_name(path.name + ".part")
    stream = open(part, "wb")  # noqa: SIM115, it outlives its name
    stream.write(content[: len(content) // 2])
    stream.flush()
    part.replace(path)
    time.sleep(1.0)  # long beside what a busy machine takes to notice the file
    stream.write(content[len(content) // 2 :])
    stream.close()


# of the second only the moment until its early rename is measured
@pytest.mark.parametrize(("writer", "share"), [(in_place, 0.5), (at_once, 10.0)])
def test_a_writer_that_is_not_atomic_is_caught(
    writer: Callable[[Mapping[str, Tensor], Path], None],
    share: float,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A writer that tears files would pass."""
    monkeypatch.setitem(kill_while_writing.WRITERS, "save_atomic", (writer, ".safetensors"))
    monkeypatch.setattr(kill_while_writing.random, "Random", lambda seed: At(share))
    code, found = kill(tmp_path, capsys, "--kills", "1", "--writer", "save_atomic")
    assert code == 1 and not found["passed"]
    assert found["torn"] > 0


def test_too_few_kills_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run in which no kill hit a writer would be shown as proof."""
    monkeypatch.setattr(kill_while_writing.random, "Random", lambda seed: At(5.0))
    code, found = kill(tmp_path, capsys, "--kills", "1", "--writer", "save_atomic")
    assert code == 1
    assert found["torn"] == 0 and found["landed"] == 0


class At:
    """Kills at a share of the writing time; 5 is long after everything was written."""

    def __init__(self, share: float) -> None:
        self.share = share

    def random(self) -> float:
        return self.share


def test_hostile_files_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """The table would not show what a user meets."""
    only = ["a Hugging Face folder whose", "a truncated .safetensors", "wrong suffix", "_orig_mod.module"]
    code = hostile_files.main(["--only", *only])
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")][1:]
    assert code == 0
    assert [row[1] for row in rows] == ["2", "2", "2", "0"]
    assert "posix.system) and was not opened further" in rows[0][2]
    assert rows[3][2:] == ["converted", "equal", "as expected |"]


def checked(case: Case, tmp_path: Path) -> list[str]:
    """What the script finds wrong with one case."""
    return hostile_files.check(case, tmp_path, Workshop.weights())[1]


def hostile(shop: Workshop) -> list[Any]:
    return [shop.pth({**shop.state, "x": Touch(shop.marker)})]


class Touch:
    """Pickles to a call that makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.path,)


def test_code_that_ran_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unsafe loader would pass, as long as it ends with a message."""
    real = checkpoint_io.torch.load
    monkeypatch.setattr(
        checkpoint_io.torch,
        "load",
        lambda path, **options: real(path, map_location="cpu", weights_only=False),
    )
    problems = checked(Case("hostile", hostile, "holds more than weights"), tmp_path)
    assert "code of the file ran" in problems


@pytest.mark.parametrize(
    ("fault", "expected", "problem"),
    [
        (RuntimeError("shapes differ"), "is not a whole", "a traceback"),
        (checkpoint_io.UserError("cannot be read"), "is not a whole", "message without 'is not a whole'"),
        (
            checkpoint_io.UserError("is not a whole ViT"),
            "is not a whole",
            "left behind: new.safetensors.part",
        ),
        (checkpoint_io.UserError("is not a whole ViT"), None, "should have been converted"),
    ],
)
def test_faults_of_a_refusal_are_seen(
    fault: Exception, expected: str | None, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A traceback, another message, a file left behind or a refused good file would pass."""

    def fail(*arguments: object, **options: object) -> None:
        if "left behind" in problem:
            (tmp_path / "new.safetensors.part").touch()
        raise fault

    monkeypatch.setattr("mst_pretrain.checkpoints.conversion.read_backbone", fail)
    problems = checked(Case("any", lambda shop: [shop.tensors({})], expected), tmp_path)
    assert problem in problems


def test_other_features_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of other weights would be called converted."""
    monkeypatch.setattr(
        "mst_pretrain.checkpoints.conversion.write_backbone",
        lambda backbone, destination, to: checkpoint_io.save_safetensors(
            {key: value + 0.01 for key, value in backbone.state.items()}, destination
        ),
    )
    assert checked(Case("good", lambda shop: [shop.tensors(shop.state)]), tmp_path) == ["other features"]

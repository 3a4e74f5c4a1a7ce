"""Checkpoints: what is refused and how it reads, what is loaded, what survives a crash."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from mmengine.logging import HistoryBuffer
from torch import Tensor, nn
from torch.nn import functional as F

from mst_pretrain.checkpoints import storage as checkpoint_io
from mst_pretrain.checkpoints.loading import load_backbone, load_model
from mst_pretrain.checkpoints.storage import flat_tensors, load_checkpoint, save_atomic, save_safetensors
from mst_pretrain.runtime.errors import UserError

PREFIX = "teacher.backbone."


def vit(img_size: int | tuple[int, int] = 32, embed_dim: int = 8, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    shape: dict[str, Any] = dict(patch_size=8, embed_dim=embed_dim, depth=1, num_heads=2, num_classes=0)
    return timm.create_model("vit_tiny_patch16_224", img_size=img_size, **shape)


def prefixed(module: nn.Module) -> dict[str, Any]:
    """A pretraining checkpoint of one backbone, with what stands beside it."""
    state = {f"{PREFIX}{key}": value for key, value in module.state_dict().items()}
    return {"state_dict": {**state, "mask_token": torch.ones(8)}, "meta": {"iter": 3}}


def weight(path: Path) -> Tensor:
    """The tensor ``w`` of a file."""
    return flat_tensors(load_checkpoint(path))[0]["w"]


def same_weights(one: nn.Module, other: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, other[key]) for key, value in one.state_dict().items())


class Malicious:
    """Pickles to a call of os.system."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.marker}",)


def test_missing_file_is_named(tmp_path: Path) -> None:
    """A wrong path would end in a traceback of the unpickler."""
    with pytest.raises(UserError, match=r"absent\.pth"):
        load_checkpoint(tmp_path / "absent.pth")


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
@pytest.mark.parametrize("kept", [0, 10, 0.5, 0.99])
def test_truncated_file_is_named(tmp_path: Path, name: str, kept: float) -> None:
    """A half-copied checkpoint would end in a traceback, or load as something else."""
    path, state = tmp_path / name, {"w": torch.arange(5000.0)}
    if path.suffix == ".pth":
        torch.save(state, path)
    else:
        save_safetensors(state, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole)) if kept < 1 else int(kept)])
    with pytest.raises(UserError, match=rf"{name}.*copy it again"):
        load_checkpoint(path)


def test_code_in_a_checkpoint_is_refused_and_named(tmp_path: Path) -> None:
    """Opening a stranger's checkpoint would run its code; the message would not say what was found."""
    marker = tmp_path / "marker"
    torch.save({"state_dict": {"w": torch.ones(2)}, "x": Malicious(marker)}, tmp_path / "evil.pth")
    with pytest.raises(UserError, match=r"evil\.pth.*(posix|nt|os)\.system.*safetensors"):
        load_checkpoint(tmp_path / "evil.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Malicious(marker), protocol=2))
    with pytest.raises(UserError, match=r"plain\.pth"):
        load_checkpoint(tmp_path / "plain.pth")
    assert not marker.exists()
    torch.save({"share": Fraction(1, 2)}, tmp_path / "class.pth")
    with pytest.raises(UserError, match=r"class\.pth.*the object fractions\.Fraction"):
        load_checkpoint(tmp_path / "class.pth")


class Getattr:
    """Pickles to getattr(owner, name), which MMEngine's histories use and attacks too."""

    def __init__(self, owner: Any, name: str) -> None:
        self.call = (owner, name)

    def __reduce__(self) -> tuple[Any, tuple[Any, str]]:
        return getattr, self.call


@pytest.mark.parametrize(("owner", "name"), [(HistoryBuffer, "__init__"), (np.ndarray, "tofile")])
def test_getattr_reaches_four_statistics_only(tmp_path: Path, owner: Any, name: str) -> None:
    """The door that MMEngine's histories need would stand open for any attribute of any allowed class."""
    torch.save({"x": Getattr(owner, name)}, tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"a\.pth"):
        load_checkpoint(tmp_path / "a.pth")


def test_mmengine_checkpoint_loads_weights_only(tmp_path: Path) -> None:
    """No run could be resumed: MMEngine keeps loss histories in its checkpoints."""
    history = HistoryBuffer([1.0, 2.0], [1, 1])
    numbers = {"f8": np.float64(0.5), "i8": np.int64(3), "u4": np.arange(3, dtype=np.uint32)}
    torch.save(
        {"message_hub": {"log_scalars": {"train/loss": history}, "numbers": numbers}}, tmp_path / "a.pth"
    )
    loaded = load_checkpoint(tmp_path / "a.pth")["message_hub"]
    scalars = loaded["log_scalars"]["train/loss"]
    assert scalars.current() == 2.0 and scalars.mean() == 1.5 and scalars.statistics("max", 2) == 2.0
    assert loaded["numbers"]["f8"] == 0.5 and loaded["numbers"]["u4"].tolist() == [0, 1, 2]


def test_file_that_is_no_dictionary_is_refused(tmp_path: Path) -> None:
    """A saved tensor would be searched for keys."""
    torch.save(torch.ones(3), tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"a\.pth.*Tensor"):
        load_checkpoint(tmp_path / "a.pth")


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
def test_prefix_is_chosen_and_removed(tmp_path: Path, wrapper: str | None) -> None:
    """Weights of the student would be taken for the teacher's, or keep their prefix."""
    teacher, student, target = vit(seed=1), vit(seed=2), vit(seed=3)
    state = {f"student.backbone.{key}": value for key, value in student.state_dict().items()}
    state |= {"epoch": 3, **prefixed(teacher)["state_dict"]}
    torch.save(state if wrapper is None else {wrapper: state}, tmp_path / "a.pth")
    wanted = [(PREFIX, teacher), ("student.backbone.", student)]
    for prefix, source in [*wanted, (None, teacher)] if wrapper == "state_dict" else wanted:
        load_backbone(target, tmp_path / "a.pth", prefix)
        assert same_weights(target, source.state_dict())
    if wrapper != "state_dict":  # nothing says that it is ours
        with pytest.raises(UserError, match=r"a\.pth holds 2 networks"):
            load_backbone(target, tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"a\.pth.*'backbone\.'.*'teacher\.backbone\.'"):
        load_backbone(target, tmp_path / "a.pth", "backbone.")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_backbone_loads_every_weight(tmp_path: Path, suffix: str) -> None:
    """A weight would keep its random value, or the report would count others."""
    source, target, path = vit(seed=1), vit(seed=2), tmp_path / f"a{suffix}"
    if suffix == ".pth":
        save_atomic(prefixed(source), path)
    else:
        save_safetensors(prefixed(source)["state_dict"], path)
    assert not same_weights(target, source.state_dict())
    report = load_backbone(target, path, PREFIX)
    assert same_weights(target, source.state_dict())
    assert report == f"all {len(source.state_dict())} keys matched"


def test_partial_coverage_fails_and_changes_nothing(tmp_path: Path) -> None:
    """A load of 2 of 211 weights would train from scratch and say nothing."""
    source, target = vit(seed=1), vit(seed=2)
    before = {key: value.clone() for key, value in target.state_dict().items()}
    for spoil in ("missing", "shape"):
        checkpoint = prefixed(source)
        if spoil == "missing":
            del checkpoint["state_dict"][f"{PREFIX}norm.bias"]
        else:
            checkpoint["state_dict"][f"{PREFIX}norm.bias"] = torch.zeros(9)
        torch.save(checkpoint, tmp_path / f"{spoil}.pth")
        with pytest.raises(UserError, match=rf"{spoil}\.pth.*norm\.bias.*another architecture"):
            load_backbone(target, tmp_path / f"{spoil}.pth", PREFIX)
        assert same_weights(target, before)
    torch.save(prefixed(vit(embed_dim=16)), tmp_path / "wide.pth")
    with pytest.raises(UserError, match=r"wide\.pth.*of another shape"):
        load_backbone(target, tmp_path / "wide.pth", PREFIX)
    assert same_weights(target, before)


@pytest.mark.parametrize("before", ["", "teacher.backbone.", "backbone.trunk."])
def test_a_backbone_alone_is_named_where_a_whole_model_belongs(before: str) -> None:
    """A tester of a backbone's file would be told to use the config it was trained with, which has no test."""
    detector = nn.ModuleDict({"backbone": nn.ModuleDict({"trunk": vit()}), "head": nn.Linear(8, 2)})
    alone = {f"{before}{name}": value for name, value in vit().state_dict().items()}
    with pytest.raises(UserError, match=r"^a\.pth is a backbone alone.*--init-from.*init_cfg"):
        load_model(detector, alone, "a.pth")
    for other in (alone | {"head.weight": torch.zeros(2, 8)}, {"conv1.weight": torch.zeros(1)}):
        with pytest.raises(UserError, match="not a checkpoint of this config's model"):
            load_model(detector, other, "a.pth")
    load_model(detector, detector.state_dict(), "a.pth")


def test_weights_that_are_left_are_reported(tmp_path: Path) -> None:
    """A classifier that nobody uses would go unnoticed, or a part of another architecture be left out."""
    target, checkpoint = vit(seed=2), prefixed(vit(seed=1))
    checkpoint["state_dict"][f"{PREFIX}head.weight"] = torch.ones(1)
    torch.save(checkpoint, tmp_path / "a.pth")
    assert "not used: head.weight" in load_backbone(target, tmp_path / "a.pth", PREFIX)
    checkpoint["state_dict"][f"{PREFIX}extra.weight"] = torch.ones(1)
    torch.save(checkpoint, tmp_path / "b.pth")
    with pytest.raises(UserError, match=r"b\.pth.*no place for \(first: extra\.weight\)"):
        load_backbone(target, tmp_path / "b.pth", PREFIX)


@pytest.mark.parametrize(("img_size", "grid"), [((48, 32), (6, 4)), (16, (2, 2)), ((24, 40), (3, 5))])
def test_position_embedding_is_resized_to_the_grid(
    tmp_path: Path, img_size: int | tuple[int, int], grid: tuple[int, int]
) -> None:
    """Positions would be transposed, off by a fraction of a patch, or [CLS] resized with them."""
    source, target = vit(32, seed=1), vit(img_size, seed=2)
    torch.save(prefixed(source), tmp_path / "a.pth")
    report = load_backbone(target, tmp_path / "a.pth", PREFIX)
    old = source.pos_embed[:, 1:].view(1, 4, 4, 8).permute(0, 3, 1, 2)
    new = F.interpolate(old, grid, mode="bicubic", antialias=True).flatten(2).transpose(1, 2)
    torch.testing.assert_close(target.pos_embed, torch.cat([source.pos_embed[:, :1], new], 1))
    count = len(target.state_dict())
    assert (
        report
        == f"all {count} keys matched (resized: pos_embed (1, 17, 8) -> {tuple(target.pos_embed.shape)})"
    )


def test_half_precision_position_embedding_is_resized_in_float32(tmp_path: Path) -> None:
    """Positions of a half-precision checkpoint would be interpolated in half precision."""
    source, target, reference = vit(32, seed=1).half(), vit(48, seed=2), vit(48, seed=2)
    torch.save(prefixed(source), tmp_path / "half.pth")
    torch.save(prefixed(source.float()), tmp_path / "float.pth")
    load_backbone(target, tmp_path / "half.pth", PREFIX)
    load_backbone(reference, tmp_path / "float.pth", PREFIX)
    torch.testing.assert_close(target.pos_embed, reference.pos_embed, rtol=0, atol=0)


class Half:
    """A file that takes four bytes and then fails."""

    def __init__(self, stream: Any, failure: BaseException) -> None:
        self.stream, self.failure = stream, failure

    def __enter__(self) -> Half:
        return self

    def __exit__(self, *args: Any) -> None:
        self.stream.close()

    def write(self, content: Any) -> int:
        self.stream.write(bytes(content)[:4])
        raise self.failure


WRITERS = ["save_atomic", "save_safetensors"]
FAILURES = [
    pytest.param(KeyboardInterrupt(), KeyboardInterrupt, id="interrupted"),
    pytest.param(OSError(28, "No space left on device"), UserError, id="full disk"),
]


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize(("failure", "raised"), FAILURES)
def test_crash_while_writing_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: str, failure: BaseException, raised: type
) -> None:
    """A run stopped while saving would have neither the old nor the new checkpoint, or half a file beside it."""
    path = tmp_path / ("a.pth" if writer == "save_atomic" else "a.safetensors")
    write = getattr(checkpoint_io, writer)
    write({"w": torch.zeros(3)}, path)

    def half_a_file(file: Any, mode: str = "r") -> Any:
        return Half(open(file, mode), failure) if "w" in mode else open(file, mode)

    monkeypatch.setattr(checkpoint_io, "open", half_a_file, raising=False)
    with pytest.raises(raised) as stopped:
        write({"w": torch.ones(3)}, path)
    monkeypatch.undo()
    assert raised is KeyboardInterrupt or "cannot be written" in str(stopped.value)
    assert torch.equal(weight(path), torch.zeros(3))
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    write({"w": torch.ones(3)}, path)
    assert torch.equal(weight(path), torch.ones(3))


@pytest.mark.parametrize("writer", WRITERS)
def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, writer: str) -> None:
    """A typing error in a destination would end in a traceback after hours of training."""
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / ("a.pth" if writer == "save_atomic" else "a.safetensors")
    with pytest.raises(UserError, match=r"file/a\.\w+ cannot be written \((Not a directory|File exists)"):
        getattr(checkpoint_io, writer)({"w": torch.ones(3)}, path)


def test_safetensors_are_the_same_bytes_and_everybodys(tmp_path: Path) -> None:
    """Digests of one content would differ from call to call, or colleagues could not read the file."""
    metadata = {name: name for name in "abcdefgh"}
    for index in range(4):
        save_safetensors(
            {"w": torch.arange(5.0), "b": torch.ones(2).half()}, tmp_path / f"{index}.safetensors", metadata
        )
    written = {(tmp_path / f"{index}.safetensors").read_bytes() for index in range(4)}
    assert len(written) == 1
    loaded = load_checkpoint(tmp_path / "0.safetensors")
    assert loaded["meta"] == metadata and loaded["state_dict"]["b"].dtype == torch.float16
    (tmp_path / "plain").write_text("")
    assert (tmp_path / "0.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_atomic_writer_keeps_everything(tmp_path: Path) -> None:
    """Folders would have to exist, or what is read would differ from what was written."""
    path = tmp_path / "new/folder/a.pth"
    save_atomic({"w": torch.arange(3), "meta": {"iter": 7, "name": "x"}}, path)
    loaded = load_checkpoint(path)
    assert loaded["w"].tolist() == [0, 1, 2] and loaded["meta"] == {"iter": 7, "name": "x"}
    view = torch.arange(6.0).view(2, 3).T
    save_safetensors({"w": view.requires_grad_()}, tmp_path / "other/b.safetensors", {"architecture": "vit"})
    assert torch.equal(weight(tmp_path / "other/b.safetensors"), view)

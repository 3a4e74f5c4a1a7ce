"""Hugging Face data sets: bytes as they were saved, labels, splits, columns; all without a network."""

from __future__ import annotations

import io
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from torch.utils.data import DataLoader

from mst_pretrain.data.datasets import UnlabelledImages
from mst_pretrain.data.hub import HubSource
from mst_pretrain.data.sources import open_source
from mst_pretrain.runtime.errors import UserError

datasets: Any = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


def jpeg(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), (value, 0, 0)).save(buffer, "JPEG")
    return buffer.getvalue()


def table(first: int, count: int, **columns: Any) -> Any:
    rows = range(first, first + count)
    data = {"picture": [{"bytes": jpeg(i), "path": None} for i in rows], "kind": [i % 2 for i in rows]}
    features = {"picture": datasets.Image(), "kind": datasets.ClassLabel(names=["cat", "dog"])}
    made = datasets.Dataset.from_dict(data, datasets.Features(features))
    for name, values in columns.items():
        made = made.add_column(name, values)
    return made


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Splits train (rows 0 to 4) and test (5 to 7)."""
    datasets.DatasetDict({"train": table(0, 5), "test": table(5, 3)}).save_to_disk(tmp_path / "saved")
    return tmp_path / "saved"


def test_saved_splits(saved: Path) -> None:
    """Images would be decoded and encoded again, come from another split, or carry wrong labels."""
    source = open_source(f"hf:{saved}@test", labelled=True)
    assert [source.read(i) for i in range(len(source))] == [jpeg(5), jpeg(6), jpeg(7)]
    assert list(source.labels) == [1, 0, 1] and source.classes == ["cat", "dog"]
    assert source.name(2) == f"hf:{saved}@test row 2"
    train = open_source(f"hf:{saved}")
    assert len(train) == 5 and train.read(4) == jpeg(4) and train.labels is None
    train.check()


def test_single_data_set_and_load_dataset(tmp_path: Path) -> None:
    """A data set saved without splits, or one that load_dataset reads, could not be used."""
    table(0, 3).save_to_disk(tmp_path / "single")
    assert len(open_source(f"hf:{tmp_path}/single")) == 3
    with pytest.raises(UserError, match=r"single split\. Leave @test out"):
        open_source(f"hf:{tmp_path}/single@test")
    (tmp_path / "parquet").mkdir()
    table(0, 4).to_parquet(tmp_path / "parquet" / "train.parquet")
    source = open_source(f"hf:{tmp_path}/parquet@train[1:3]", labelled=True)
    assert [source.read(i) for i in range(len(source))] == [jpeg(1), jpeg(2)] and list(source.labels) == [
        1,
        0,
    ]


def test_images_kept_as_paths(tmp_path: Path) -> None:
    """A data set that refers to files would give no bytes."""
    (tmp_path / "a.jpg").write_bytes(jpeg(1))
    made = datasets.Dataset.from_dict({"image": [str(tmp_path / "a.jpg")]})
    made.cast_column("image", datasets.Image()).save_to_disk(tmp_path / "paths")
    source = HubSource(f"hf:{tmp_path}/paths")
    source.rows = made.cast_column(
        "image", datasets.Image(decode=False)
    )  # saving may have put the bytes inside
    assert source.read(0) == jpeg(1)
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(UserError, match=r"row 0: .*a\.jpg cannot be read"):
        source.read(0)
    with pytest.raises(UserError, match=r"1 of 1 images .*row 0.*a\.jpg"):
        source.check()


def test_columns(tmp_path: Path) -> None:
    """Of several image columns one would be taken by chance."""
    made = table(0, 2).add_column("mask", [{"bytes": jpeg(9), "path": None}] * 2)
    made.cast_column("mask", datasets.Image()).save_to_disk(tmp_path / "two")
    with pytest.raises(UserError, match=r"2 Image columns among picture \(Image\).*hf:NAME@SPLIT#COLUMN"):
        open_source(f"hf:{tmp_path}/two")
    assert open_source(f"hf:{tmp_path}/two#mask").read(1) == jpeg(9)
    with pytest.raises(UserError, match="no Image columns kind among"):
        open_source(f"hf:{tmp_path}/two#kind")
    made.remove_columns("kind").cast_column("mask", datasets.Image()).save_to_disk(tmp_path / "bare")
    with pytest.raises(UserError, match="no ClassLabel columns among"):
        open_source(f"hf:{tmp_path}/bare#mask", labelled=True)


def test_bad_rows_are_found_before_the_first_step(tmp_path: Path) -> None:
    """A truncated or absent image would stop the run at the step that draws it; -1 would be the last class."""
    rows = [{"bytes": data, "path": None} for data in (jpeg(1), jpeg(2)[:-2], jpeg(3))]
    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["a"])}
    made = datasets.Dataset.from_dict(
        {"image": [*rows, None], "label": [0, 0, -1, None]}, datasets.Features(features)
    )
    made.save_to_disk(tmp_path / "bad")
    with pytest.raises(UserError, match=r"2 of 4 images .*bad row 1 \(truncated JPEG.*row 3 has no image"):
        open_source(f"hf:{tmp_path}/bad").check()
    with pytest.raises(UserError, match="2 of 4 rows have no label"):
        open_source(f"hf:{tmp_path}/bad", labelled=True)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("hf:{}@val", r"no split 'val'\. There are: train, test"),
        ("hf:{}.gone", r"cannot be loaded \(.+\)\. Check the name"),
        ("hf:", "Write hf:NAME"),
    ],
)
def test_bad_specs_are_refused(saved: Path, spec: str, message: str) -> None:
    """A typing error would end in a traceback, or ask the network."""
    with pytest.raises(UserError, match=message):
        open_source(spec.format(saved))


def test_workers_read_what_the_main_process_reads(saved: Path) -> None:
    """The data set could not be sent to data workers, or they would read other rows."""
    source = pickle.loads(pickle.dumps(open_source(f"hf:{saved}")))
    assert [source.read(i) for i in range(5)] == [jpeg(i) for i in range(5)]
    data = UnlabelledImages(f"hf:{saved}", dict(global_crops=[dict(size=8)], local_count=0))
    order: Any = [(0, index) for index in (4, 0, 2, 1)]
    reds = [
        batch["global_crops"][:, 0, 0].float().mean((1, 2))
        for batch in DataLoader(data, batch_size=4, sampler=order, num_workers=1)
    ]
    assert (reds[0] - reds[0].new_tensor([4, 0, 2, 1])).abs().max() < 1.5


def test_missing_package_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody without the optional package would read an ImportError."""
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"hf:cifar10 needs .*pip install datasets"):
        open_source("hf:cifar10")

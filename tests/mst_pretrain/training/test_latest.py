"""Which checkpoint is the latest."""

from __future__ import annotations

from pathlib import Path

from mst_pretrain.training.runner import point_latest


def test_latest_is_the_same_file_and_replaces_an_older_one(tmp_path: Path) -> None:
    """Fine-tuning or --resume would read an old or a half-written checkpoint."""
    for name in ("iter_1.pth", "iter_2.pth"):
        (tmp_path / name).write_bytes(name.encode())
        point_latest(tmp_path / name)
        assert (tmp_path / "latest.pth").read_bytes() == name.encode()
    (tmp_path / "iter_2.pth").unlink()
    assert (tmp_path / "latest.pth").read_bytes() == b"iter_2.pth"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["iter_1.pth", "latest.pth"]

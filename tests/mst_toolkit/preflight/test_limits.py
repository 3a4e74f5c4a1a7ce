"""What the system allows beside what a run asks for: the line between a fault and none, and the numbers."""

from __future__ import annotations

import pytest

from mst_toolkit.findings import FAULT, OK, WARN
from mst_toolkit.preflight import limits
from mst_toolkit.preflight.limits import Loading, Saved

MIB = 2**20
LOADING = Loading(workers=4, prefetch=2, batch_bytes=10 * MIB, batch_tensors=5, seconds=0.01)


@pytest.mark.parametrize(("free", "kind"), [(226, OK), (224, WARN), (179, FAULT)])
def test_shared_memory(free: int, kind: str) -> None:
    """Workers would be killed by a bus error hours into a run, or a run be refused that fits: 2 x 9 x 10 MiB."""
    ((found, text),) = limits.shared_memory(LOADING, 2, free * MIB, 256 * MIB)
    assert found == kind and "180 MiB for the batches of 8 workers" in text
    assert kind == OK or "--shm-size=1g; or train_dataloader.num_workers=" in text


def test_no_worker_needs_no_shared_memory() -> None:
    """A run that loads in its own process would be refused in a container with 64 MB of shared memory."""
    alone = Loading(0, 2, 10 * MIB, 5, 0.01)
    assert not [
        *limits.shared_memory(alone, 1, 0, 64 * MIB),
        *limits.file_handles(alone, 10, "file_descriptor"),
    ]


@pytest.mark.parametrize(("limit", "kind"), [(189, OK), (188, FAULT)])
def test_file_handles(limit: int, kind: str) -> None:
    """Loading would end with "Too many open files": 128 + 9 batches of 5 tensors + 4 x 4 pipes."""
    ((found, text),) = limits.file_handles(LOADING, limit, "file_descriptor")
    assert found == kind and "about 189 of" in text
    assert kind == OK or text.endswith("ulimit -n 256")
    assert not list(limits.file_handles(LOADING, 10, "file_system"))


@pytest.mark.parametrize(
    ("cfg", "tidy", "expected"),
    [
        (dict(default_hooks=dict(checkpoint=dict(interval=30, by_epoch=False))), False, Saved(4, 6)),
        (dict(default_hooks=dict(checkpoint=dict(interval=2, max_keep_ckpts=3))), False, Saved(5, 5)),
        (dict(default_hooks=dict(checkpoint=dict(interval=3, save_last=False))), False, Saved(3, 5)),
        (
            dict(default_hooks=dict(checkpoint=dict(type="HealthyCheckpointHook", interval=30))),
            True,
            Saved(4, 3),
        ),
        (
            dict(default_hooks=dict(logger=dict(save_best="AP"), checkpoint=dict(interval=5))),
            True,
            Saved(2, 4),
        ),
        (dict(default_hooks=dict(checkpoint=dict(interval=-1))), False, Saved(1, 3)),
        (
            dict(default_hooks=dict(checkpoint=dict(interval=1, max_keep_ckpts=2, keep_every_epochs=4))),
            True,
            Saved(10, 6),
        ),
    ],
)
def test_how_many_checkpoints_are_kept(cfg: dict, tidy: bool, expected: Saved) -> None:
    """A disk that fills up after days would be called large enough: 100 iterations, 10 an epoch."""
    assert limits.saved(cfg, 100, 10, tidy, begins=True) == expected


@pytest.mark.parametrize(("free", "kind"), [(63, OK), (62, WARN), (49, FAULT)])
def test_disk(free: int, kind: str) -> None:
    """The run would end where its disk is full."""
    ((found, text),) = limits.disk(Saved(40, 5), 10 * MIB, free * MIB, "/runs")
    assert found == kind and f"50 MiB of {free} MiB free at /runs" in text


@pytest.mark.parametrize(("free", "kind"), [(26, OK), (24, WARN)])
def test_memory(free: int, kind: str) -> None:
    """A step that fits by a few bytes fails on the first larger batch; two processes share the CPU's memory."""
    ((found, text),) = limits.memory(10 * 2**30, 2, free * 2**30, "CPU", 16)
    assert found == kind and f"{free}.00 GiB were free" in text


@pytest.mark.parametrize(
    ("workers", "cores", "kind", "advice"),
    [(4, 8, OK, ""), (2, 8, WARN, "num_workers=4"), (8, 2, WARN, "Use more cores")],
)
def test_loader_beside_step(workers: int, cores: int, kind: str, advice: str) -> None:
    """A GPU would wait for images for weeks: 64 images of 10 ms in a step of 0.16 s take 4 cores."""
    loading = Loading(workers, 2, MIB, 5, 0.01)
    ((found, text),) = limits.cores(loading, 64, 0.16, cores)
    assert found == kind and advice in text and "4 workers would keep up" in text

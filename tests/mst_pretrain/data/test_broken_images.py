"""Images that break in the middle of a run: replaced by a rule, counted, named once, and not more than allowed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook

import mst_pretrain  # noqa: F401  registers the model, the data and the loop
from mst_pretrain.checkpoints.storage import load_checkpoint
from mst_pretrain.data.broken_images import Fault, candidates, decode, first_usable, read_again
from mst_pretrain.data.datasets import UnlabelledImages
from mst_pretrain.runtime.errors import UnusableImage, UserError
from mst_pretrain.training.runner import MSTRunner, build_runner

MakeConfig = Callable[..., Config]
# 17 images in steps of 4: the first epoch ends in step 5, the second in step 9.
OPTIONS: dict[str, Any] = {"train_cfg__max_iters": 9, "default_hooks__checkpoint__interval": 6}
OPTIONS["train_dataloader__dataset__cache"] = "none"  # files break after they were read once
ALLOWED = {"default_hooks__watch": {"type": "WatchHook", "max_bad_share": 0.2}}


class BreakAt(Hook):
    """Damages files when a step begins: emptied, replaced by text, removed."""

    def __init__(self, folder: Path, step: int = 2) -> None:
        self.folder, self.step = folder, step

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        if runner.iter + 1 == self.step:
            (self.folder / "3.png").write_bytes(b"")
            (self.folder / "8.png").write_text("<html>404</html>")
            (self.folder / "12.png").unlink()


@pytest.fixture
def folder(images: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(images, tmp_path / "photos"))


def run(cfg: Config, *hooks: Hook) -> MSTRunner:
    runner = build_runner(cfg)
    assert isinstance(runner, MSTRunner)
    for hook in hooks:
        runner.register_hook(hook)
    runner.train()
    return runner


def test_stand_ins_are_a_function_of_seed_epoch_and_index() -> None:
    """A resumed run would train on other images, or an epoch would take the same stand-in for every broken one."""
    assert next(candidates(1, 2, 3, 5)) == 3 and sorted(candidates(1, 2, 3, 5)) == [0, 1, 2, 3, 4]
    assert list(candidates(1, 2, 3, 5)) == list(candidates(1, 2, 3, 5))
    first = [
        next(islice(candidates(*place, 1000), 1, None))
        for place in ((1, 2, 3), (2, 2, 3), (1, 3, 3), (1, 2, 4))
    ]
    assert len(set(first)) == 4


def test_an_image_is_read_three_times() -> None:
    """One hiccup of a network file system would cost the image, or a broken file would be read for ever."""
    reads: list[int] = []

    def read(works_at: int) -> str:
        reads.append(1)
        if len(reads) < works_at:
            raise UnusableImage("cannot be read") from OSError(5, "Input/output error")
        return "pixels"

    assert read_again(lambda: read(3)) == "pixels" and len(reads) == 3
    reads.clear()
    with pytest.raises(UnusableImage, match="cannot be read"):
        read_again(lambda: read(9))
    assert len(reads) == 3


def test_what_is_not_a_files_fault_is_not_blamed_on_it() -> None:
    """A full table of open files would replace one image after the other; a defect would look like broken images."""
    name = "image {}".format

    def no_handles(index: int) -> None:
        raise UnusableImage(f"{index}.jpg cannot be read (Too many open files).")

    with pytest.raises(UserError, match=r"0\.jpg cannot be read \(Too many open files\)"):
        first_usable(iter(range(9)), no_handles, name)
    with pytest.raises(KeyError):
        first_usable(iter(range(9)), {}.__getitem__, name)

    def gone(index: int) -> None:
        raise UnusableImage(f"{index}.jpg cannot be read.")

    with pytest.raises(UserError, match=r"50 images in a row.*0\.jpg cannot be read.*disk"):
        first_usable(iter(range(99)), gone, name)


def test_a_sample_keeps_its_own_augmentation(folder: Path) -> None:
    """A stand-in would be a copy of its own sample in the same epoch."""
    data = UnlabelledImages(
        str(folder), {"global_crops": [{"size": 16}], "local_count": 0}, seed=5, check=False
    )
    paths = [data.source.name(index) for index in range(17)]
    paths = [path for path in paths if Path(path).name == "8.png"]
    broken = next(index for index in range(17) if data.source.name(index) == paths[0])
    Path(paths[0]).write_bytes(b"")
    stand_in = next(islice(candidates(5, 1, broken, 17), 1, None))
    sample, own = data[1, broken], data[1, stand_in]
    assert int(sample["index"]) == int(own["index"]) == stand_in and own["faults"] == ""
    (fault,) = decode([own["faults"], sample["faults"]])
    assert (fault.number, fault.name) == (broken, paths[0]) and "8.png cannot be decoded" in fault.reason
    assert not torch.equal(sample["global_crops"], own["global_crops"])
    assert int(sample["seed"]) != int(own["seed"])


def test_a_resumed_run_keeps_its_list_of_images(toy_config: MakeConfig, folder: Path) -> None:
    """An image that vanished or was added since would shift every index after it, or forbid to go on."""
    options = {"train_cfg__max_iters": 6, "default_hooks__checkpoint__interval": 3, "data_root": str(folder)}
    whole = run(toy_config(**options))
    (folder / "7.png").rename(folder / "moved.gone")
    shutil.copy(folder / "1.png", folder / "0-new.png")
    moved = Path(shutil.move(folder, folder.with_name("elsewhere")))
    cfg = toy_config(**options | {"data_root": str(moved)}, **ALLOWED)
    cfg.resume, cfg.load_from = True, str(Path(whole.work_dir, "iter_3.pth"))
    dataset = run(cfg).train_dataloader.dataset
    names = [Path(dataset.source.name(index)) for index in range(len(dataset))]
    assert names == sorted(moved / f"{index}.png" for index in range(17))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_survives_broken_images_and_resumes_exactly(
    toy_config: MakeConfig, folder: Path, images: Path, workers: int
) -> None:
    """One file that breaks after two days would end the run; a resumed run would draw other stand-ins."""
    options = {**OPTIONS, **ALLOWED, "data_root": str(folder), "train_dataloader__num_workers": workers}
    if workers:  # what the workers have read ahead is whole; the files break before they are needed
        options["train_dataloader__prefetch_factor"] = 1
    whole = run(toy_config(**options), BreakAt(folder))
    listed = Path(whole.work_dir, "bad_images.txt").read_text()
    names = [line.split("\t")[0] for line in listed.splitlines()]
    assert names == [str(folder / name) for name in ("12.png", "3.png", "8.png")]
    assert "No such file" in listed and "cannot be decoded" in listed
    cfg = toy_config(**options)
    cfg.resume, cfg.load_from = True, str(Path(whole.work_dir, "iter_6.pth"))
    resumed = run(cfg)
    assert Path(resumed.work_dir, "bad_images.txt").read_text() == listed
    one, other = (load_checkpoint(Path(runner.work_dir, "iter_9.pth")) for runner in (whole, resumed))
    assert one["bad_images"] == other["bad_images"] and len(one["bad_images"]) == 3
    for name, value in one["state_dict"].items():
        assert torch.equal(value, other["state_dict"][name]), name
    untouched = run(toy_config(**options | {"data_root": str(images)}))
    same = load_checkpoint(Path(untouched.work_dir, "iter_9.pth"))["state_dict"]
    assert not torch.equal(same["mask_token"], one["state_dict"]["mask_token"])


def test_too_many_broken_images_stop_the_run_with_their_list(toy_config: MakeConfig, folder: Path) -> None:
    """A half-copied data set would be trained on without a word, or the work so far would be lost."""
    cfg = toy_config(
        **OPTIONS, data_root=str(folder), default_hooks__watch={"type": "WatchHook", "max_bad_share": 0.1}
    )
    with pytest.raises(
        UserError, match=r"2 of 17 images cannot be used, more than a share of 0\.1: .*latest\.pth"
    ):
        run(cfg, BreakAt(folder))
    assert len(Path(cfg.work_dir, "bad_images.txt").read_text().splitlines()) == 2
    step = load_checkpoint(Path(cfg.work_dir, "latest.pth"))["meta"]["iter"]
    assert 2 <= step < 9
    cfg.resume, cfg.load_from = True, str(Path(cfg.work_dir, "latest.pth"))
    cfg.experiment_name += "-resumed"
    with pytest.raises(UserError, match=r"2 of 17 images cannot be used, more than a share of 0\.1"):
        run(cfg)
    for name in ("3.png", "8.png", "12.png"):
        shutil.copy(folder / "1.png", folder / name)
    cfg.experiment_name += "-repaired"
    assert run(cfg).iter == 9 and not Path(cfg.work_dir, "bad_images.txt").exists()


def test_a_disk_that_goes_away_ends_the_run_with_a_checkpoint(
    toy_config: MakeConfig, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All steps since the last checkpoint would be lost."""
    monkeypatch.setattr("mst_pretrain.data.broken_images.PAUSES", (0, 0))

    class Gone(Hook):
        def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
            if runner.iter == 3:
                shutil.rmtree(folder)

    cfg = toy_config(**OPTIONS, data_root=str(folder))
    with pytest.raises(
        UserError, match=r"17 images in a row cannot be used.*disk.*Continue from .*latest\.pth"
    ):
        run(cfg, Gone())
    assert load_checkpoint(Path(cfg.work_dir, "latest.pth"))["meta"]["iter"] == 4


def test_a_list_resumes_from_another_folder(
    toy_config: MakeConfig, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run on a list that was named by a relative path could be resumed from one folder only."""
    (folder / "list.txt").write_text("".join(f"{index}.png\n" for index in range(17)))
    monkeypatch.chdir(folder.parent)
    whole = run(toy_config(train_cfg__max_iters=4, data_root="photos/list.txt"))
    monkeypatch.chdir(folder)
    cfg = toy_config(train_cfg__max_iters=5, data_root=str(folder / "list.txt"))
    cfg.resume, cfg.load_from = True, str(Path(whole.work_dir, "latest.pth"))
    assert run(cfg).iter == 5


def test_the_list_of_another_run_is_not_taken(toy_config: MakeConfig, folder: Path) -> None:
    """A new run in the same work directory would change on which images an older checkpoint goes on."""
    first = run(toy_config(train_cfg__max_iters=1, data_root=str(folder)))
    older = Path(first.work_dir, "latest.pth")
    for path in list(folder.iterdir()):
        path.rename(folder / f"new-{path.name}")
    other = run(toy_config(train_cfg__max_iters=1, data_root=str(folder)))
    shutil.copy(Path(other.work_dir, "images.npz"), Path(first.work_dir, "images.npz"))
    cfg = toy_config(train_cfg__max_iters=2, data_root=str(folder))
    cfg.resume, cfg.load_from = True, str(older)
    with pytest.raises(
        UserError,
        match=r"cannot resume .*latest\.pth: .*\n  the training data: 17 images .* -> 17 images .*images\.npz",
    ):
        run(cfg)


def test_an_impossible_share_is_refused(toy_config: MakeConfig) -> None:
    """1 meant as one per cent would allow every image to be broken; 5 would be taken too."""
    with pytest.raises(UserError, match=r"max_bad_share is 5\. Give a share from 0 to 1"):
        build_runner(toy_config(default_hooks__watch={"type": "WatchHook", "max_bad_share": 5}))


def test_faults_travel_as_text() -> None:
    """A name in another encoding would be lost between a worker and the list."""
    faults = [Fault(3, "a\udce4.jpg", "says 'no'\n"), Fault(0, "b", "")]
    from mst_pretrain.data.broken_images import encode

    assert decode([encode(faults), "", encode([])]) == faults

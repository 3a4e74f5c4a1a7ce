"""The rows of the comparison: one option, one difference."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from mst_pretrain.runtime.config import load_config
from mst_pretrain.runtime.errors import UserError
from mst_transfer.comparison.rows import (
    INIT_CFG,
    INITIALISATIONS,
    ROWS,
    architecture_of,
    find,
    problem_of,
    row_of,
    use_row,
)
from mst_transfer.comparison.runs import Job, check_weights
from mst_transfer.training.checks import _check_pretrained

ROOT = Path(__file__).parents[3]
CONFIGS = sorted(
    [*(ROOT / "configs/coco").glob("*_mst*.py"), *(ROOT / "configs/cityscapes").glob("*_mst*.py")]
)
PUBLISHED = [init for init in INITIALISATIONS.values() if (init.checkpoint or "").startswith("pretrained/")]


def leaves(node: Any, name: str = "") -> dict[str, Any]:
    """Every value of a config by its dotted key."""
    if not isinstance(node, dict) or not node:
        return {name: node}
    return {
        k: v
        for key, value in node.items()
        for k, v in leaves(value, f"{name}.{key}" if name else key).items()
    }


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_row_changes_the_weights_and_the_folder_only(path: Path) -> None:
    """A row would be trained with another recipe than the row it is compared with."""
    base = load_config(path)
    seen = set()
    for row in ROWS:
        cfg = copy.deepcopy(base)
        if (row, architecture_of(cfg)) not in INITIALISATIONS:
            continue
        use_row(cfg, row)
        before, after = leaves(base._cfg_dict.to_dict()), leaves(cfg._cfg_dict.to_dict())
        changed = {k for k in before.keys() | after.keys() if before.get(k, ...) != after.get(k, ...)}
        assert all(key == "work_dir" or key.startswith("model.backbone.init_cfg") for key in changed), changed
        assert row_of(cfg) == row
        init = cfg.model.backbone.init_cfg
        assert init is None if row == "random" else init.type == "Pretrained"
        seen.add((cfg.work_dir, str(init)))
    assert len(seen) == (7 if architecture_of(base) == "deit-s" else 8)


def test_the_folder_names_config_row_and_seed() -> None:
    """Two rows or two seeds would be trained into one folder, the second over the first."""
    cfg = load_config(ROOT / "configs/coco/mask_rcnn_mst.py", {"randomness.seed": 7})
    use_row(cfg, "moby")
    assert cfg.work_dir == "work_dirs/mask_rcnn_mst_moby_seed7"


def test_own_rows_are_what_pretraining_leaves() -> None:
    """--init mst-100 would look for a file, or name a config, that does not exist."""
    for (row, architecture), init in INITIALISATIONS.items():
        if not row.startswith("mst-"):
            continue
        config = re.search(r"configs/pretrain/(\S+)\.py", init.command)
        assert config is not None and init.checkpoint == f"work_dirs/{config[1]}/latest.pth"
        cfg = load_config(ROOT / f"configs/pretrain/{config[1]}.py")
        assert cfg.train_cfg.max_epochs == int(row.removeprefix("mst-"))
        assert {"deit-s": "vit_small", "swin-t": "swin_tiny"}[architecture] in cfg.model.backbone.name
        assert init.init_cfg is not None and init.init_cfg["prefix"] == "teacher.backbone."


@pytest.mark.parametrize("init", PUBLISHED, ids=lambda init: f"{init.row}_{init.architecture}")
def test_a_published_file_has_an_origin_and_a_conversion(init: Any) -> None:
    """A user would not learn where to get a file, or convert another one than the one that is loaded."""
    where = re.search(r"(https://\S+) \(save as (\S+)\)$", init.origin)
    words = init.command.split()
    assert where is not None and words[:2] == ["python", "tools/convert_checkpoint.py"]
    assert words[2:4] == [where[2], init.checkpoint] and words[-2:] == ["--to", "timm"]
    assert init.init_cfg["prefix"] == "" and str(init.checkpoint).endswith(".safetensors")
    assert len({other.checkpoint for other in PUBLISHED}) == len(PUBLISHED)
    assert len({other.origin.split("(save as ")[1] for other in PUBLISHED}) == len(PUBLISHED)


def test_a_missing_file_names_origin_and_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training would stop without saying where the row's weights come from."""
    monkeypatch.chdir(tmp_path)
    cfg = load_config(ROOT / "configs/coco/mask_rcnn_mst.py")
    use_row(cfg, "moby")
    with pytest.raises(UserError) as raised:
        _check_pretrained(cfg)
    for part in (
        "pretrained/moby_swin-t.safetensors (row 'moby', swin-t)",
        "https://github.com/SwinTransformer/storage/releases/download/v1.0.3/moby_swin_t_300ep_pretrained.pth",
        "python tools/convert_checkpoint.py pretrained/moby_swin_t_300ep_pretrained.pth "
        "pretrained/moby_swin-t.safetensors --from moby --to timm",
    ):
        assert part in str(raised.value)
    assert problem_of("somewhere/else.pth") is None


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (
            {"meta": {"iter": 10}, "sampler": {"size": 2050}, "global_batch": 1024},
            "it has 10 of 600 iterations",
        ),
        (
            {"meta": {"iter": 599}, "sampler": {"size": 2050}, "global_batch": 1024},
            "it has 599 of 600 iterations",
        ),
        ({"meta": {"iter": 600}}, "it does not say for how long it was pretrained"),
        ({"meta": {"iter": 600}, "sampler": {"size": 2050}, "global_batch": 1024}, None),
    ],
)
def test_an_unfinished_pretraining_is_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: dict[str, Any], message: str | None
) -> None:
    """The checkpoint of the first hour would stand in the table as 300 epochs."""
    monkeypatch.chdir(tmp_path)
    cfg = load_config(ROOT / "configs/coco/mask_rcnn_mst.py")
    use_row(cfg, "mst-300")
    folder = Path("work_dirs/mst_swin-t_8xb128-300e_in1k")
    folder.mkdir(parents=True)
    torch.save(state, folder / "latest.pth")
    job = Job(str(ROOT / "configs/coco/mask_rcnn_mst.py"), "mst-300", 0, (), {}, (), 1)
    if message is None:
        _check_pretrained(cfg)
        check_weights([job])
        return
    with pytest.raises(UserError) as raised:
        _check_pretrained(cfg)
    start = f"{folder}/latest.pth is not the 300 epochs of row 'mst-300' (swin-t): {message}. Finish it: bash tools/"
    assert str(raised.value).startswith(start) and "8xb128-300e_in1k.py 8 --resume; or give" in str(
        raised.value
    )
    with pytest.raises(UserError, match=message):
        check_weights([job])
    other = folder / f"iter_{state['meta']['iter']}.pth"
    assert f"{INIT_CFG}.checkpoint={other}" in str(raised.value)
    torch.save(state, other)
    cfg.model.backbone.init_cfg.checkpoint = str(other)
    _check_pretrained(cfg)
    assert row_of(cfg) == str(other)


def test_an_unknown_row_is_refused() -> None:
    """A misspelt row, or one that nobody published for this backbone, would train from something else."""
    swin = load_config(ROOT / "configs/coco/mask_rcnn_mst.py")
    deit = load_config(ROOT / "configs/coco/mask_rcnn_mst_deit-s_1x.py")
    with pytest.raises(UserError, match=r"--init mocov3.*Rows: random, supervised, dino, moby, esvit, ibot"):
        find("mocov3", swin)
    with pytest.raises(UserError, match=r"--init esvit.*deit-s.*Rows: random, supervised, dino, moby, ibot"):
        find("esvit", deit)


def test_another_backbone_has_random_weights_only() -> None:
    """A reduced network would be given the file of the full-size one."""
    quick = load_config(ROOT / "configs/quickstart/mask_rcnn.py")
    assert find("random", quick).init_cfg is None
    with pytest.raises(UserError, match="not DeiT-S or Swin-T"):
        find("dino", quick)
    swin = load_config(ROOT / "configs/coco/mask_rcnn_mst.py", {"+model.backbone.model_args.depths": [2, 2]})
    assert architecture_of(swin) is None
    setr = load_config(ROOT / "configs/cityscapes/setr_pup_mst_deit-s.py")
    assert setr.model.backbone.model_args == {"img_size": 768} and architecture_of(setr) == "deit-s"


def test_pretraining_has_no_rows() -> None:
    """--init on a pretraining config would be ignored."""
    cfg = load_config(ROOT / "configs/pretrain/mst_swin-t_8xb64-100e_in1k.py")
    with pytest.raises(UserError, match="pretraining has --init-from"):
        use_row(cfg, "dino")

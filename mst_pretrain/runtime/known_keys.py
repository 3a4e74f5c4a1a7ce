"""Dictionaries of a config that take any key, and of which few are read: a misspelled one would change nothing."""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Iterator
from typing import Any

from mmengine.config import Config

from .errors import UserError
from .options import walk

# [code: MMEngine's Runner, mmdet's CocoDataset, mmseg's BaseSegDataset]; evaluation: FeatureWatchHook's
KNOWN: dict[str, tuple[str, ...]] = {
    "env_cfg": ("cudnn_benchmark", "mp_cfg", "dist_cfg", "resource_limit"),
    "env_cfg.mp_cfg": ("mp_start_method", "opencv_num_threads"),
    "evaluation": ("knn", "every_epochs"),
    "randomness": ("seed", "deterministic", "diff_rank_seed"),
}
COCO: dict[str, tuple[str, ...]] = {
    "filter_cfg": ("filter_empty_gt", "min_size"),
    "data_prefix": ("img", "seg"),
    "metainfo": ("classes", "palette"),
}
SEGMENTATION: dict[str, tuple[str, ...]] = {
    "filter_cfg": (),
    "data_prefix": ("img_path", "seg_map_path"),
    "metainfo": ("classes", "palette"),
}
OF_DATA_SETS = {  # by scope: both libraries have a CityscapesDataset
    "mmdet": {"CocoDataset": COCO},
    "mmseg": dict.fromkeys(
        ("FolderSegmentation", "StreetSegmentation", "BaseSegDataset", "CityscapesDataset"), SEGMENTATION
    ),
}
LOADERS = ("train_dataloader", "val_dataloader", "test_dataloader")
LEAST = {"batch_size": 1, "num_workers": 0}
RATES = (
    "optim_wrapper.optimizer.lr",
    "optim_wrapper.optimizer.weight_decay",
    "default_hooks.schedule.base_lr",
)


def check_known_keys(cfg: Config) -> None:
    """Raise a UserError for a key that nothing reads, in a dictionary whose few keys are known."""
    for key, node, known in _dictionaries(cfg):
        for name in node:
            if name not in known:
                close = _close(name, known, 0.5)
                nearest = f" Did you mean '{close[0]}'?" if close else ""
                keys = f"Known are {', '.join(known)}." if known else "It takes none: leave it out."
                raise UserError(f"{cfg.filename}: nothing reads {key}.{name}. {keys}{nearest}")


def check_numbers(cfg: Config) -> None:
    """Raise a UserError for an empty batch, less than no workers, and a rate that is negative or not finite."""
    now = dict(walk(cfg._cfg_dict))
    least = {f"{loader}.{name}": smallest for loader in LOADERS for name, smallest in LEAST.items()}
    for key, smallest in {**least, **dict.fromkeys(RATES, 0)}.items():
        value = now.get(key)
        if isinstance(value, int | float) and not smallest <= value < math.inf:
            raise UserError(f"{cfg.filename}: {key} is {value}; it must be at least {smallest}, and finite.")


def _dictionaries(cfg: Config) -> Iterator[tuple[str, dict[str, Any], Collection[str]]]:
    """Key, dictionary and what is read of it."""
    for key, node in walk(cfg._cfg_dict):
        if not isinstance(node, dict):
            continue
        if key in KNOWN:
            yield key, node, KNOWN[key]
        elif key.startswith(LOADERS):
            kind = node.get("type")
            name = getattr(kind, "__name__", str(kind)).rpartition(".")[2]
            for part, known in OF_DATA_SETS.get(str(cfg.get("default_scope")), {}).get(name, {}).items():
                given = node.get(part)
                if isinstance(given, dict) and part == "metainfo":  # a data set may tell more of itself
                    known = (*known, *(key for key in given if not _close(key, known, 0.7)))
                if isinstance(given, dict):
                    yield f"{key}.{part}", given, known


def _close(name: Any, known: Collection[str], likeness: float) -> list[str]:
    return difflib.get_close_matches(str(name).lower(), known, 1, likeness)

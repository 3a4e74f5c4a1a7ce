"""The score that decides which checkpoint of a fine-tuning is the best, looked at before the first step."""

from __future__ import annotations

from mmengine.config import Config

from mst_pretrain.runtime.errors import UserError
from mst_pretrain.training.best import AUTO
from mst_pretrain.training.lines import scores_of

from ..evaluation.coco_scores import STATISTICS

SEGMENTATION = ("aAcc", "mIoU", "mAcc")


def check_save_best(cfg: Config) -> None:
    """Raise a UserError where ``save_best`` names a score that the validation will not give.

    Nothing is said of metrics that are not ours: the first validation tells.
    """
    wanted = (cfg.get("default_hooks", {}).get("checkpoint") or {}).get("save_best")
    if wanted in AUTO:
        return
    if not cfg.get("val_evaluator"):
        raise UserError(
            f"{cfg.filename}: default_hooks.checkpoint.save_best is {wanted!r}, and nothing is validated. Leave it out."
        )
    known = known_scores(cfg)
    if not known:
        return
    short = scores_of(dict.fromkeys(known, 0.0)) if cfg.get("run_folder") else {}
    names = wanted if isinstance(wanted, (list, tuple)) else [wanted]
    strange = [name for name in names if name not in (*known, *short)]
    if strange:
        raise UserError(
            f"{cfg.filename}: default_hooks.checkpoint.save_best is {strange[0]!r}, which this validation does not "
            f"give. Known are {', '.join(known)}."
        )


def known_scores(cfg: Config) -> list[str]:
    """The names of a validation's scores as MMEngine has them; empty where a metric is not ours."""
    evaluators = cfg.get("val_evaluator") or []
    names: list[str] = []
    for evaluator in evaluators if isinstance(evaluators, (list, tuple)) else [evaluators]:
        kind = str(evaluator.get("type")).rpartition(".")[2]
        if kind == "MSTCocoMetric":
            metric = evaluator.get("metric", ("bbox", "segm"))
            kinds = [metric] if isinstance(metric, str) else metric
            names += [f"coco/{kind}_{name}" for kind in kinds for name in STATISTICS]
        elif kind == "MSTIoUMetric":
            names += SEGMENTATION
        else:
            return []
    return names

"""The rows of every comparison: where each initialisation's weights come from, by architecture.

This is the only place that names them. ``tools/train.py --init NAME`` puts one into a config and changes nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mst_pretrain.checkpoints.storage import load_checkpoint
from mst_pretrain.runtime.errors import UserError
from mst_pretrain.training.resume import recorded

ROWS = ("random", "supervised", "dino", "moby", "esvit", "ibot", "mst-100", "mst-300")
ARCHITECTURES = {"vit_small_patch16_224": "deit-s", "swin_tiny_patch4_window7_224": "swin-t"}
INIT_CFG = "model.backbone.init_cfg"
RANDOM = "random"

_FACEBOOK = "https://dl.fbaipublicfiles.com"
_SWIN = "https://github.com/SwinTransformer/storage/releases/download"
_ESVIT = "https://chunyleu.blob.core.windows.net/output/ckpts/esvit/swin/swin_tiny/bl_lr0.0005_gpu16_bs32"
_DRIVE = "https://drive.google.com/file/d"


@dataclass(frozen=True)
class Initialisation:
    """The weights that one architecture starts from in one row.

    Attributes:
        row: One of :data:`ROWS`.
        architecture: ``deit-s`` or ``swin-t``.
        checkpoint: File with timm's keys, relative to where the tools are started; None for random weights.
        origin: Who trained the weights, how long, and where the original file is.
        command: What makes ``checkpoint``.
        epochs: Length of our own pretraining, which ``checkpoint`` itself must prove; None for other people's files.
    """

    row: str
    architecture: str
    checkpoint: str | None = None
    origin: str = "timm's initialisation"
    command: str = ""
    epochs: int | None = None

    @property
    def init_cfg(self) -> dict[str, Any] | None:
        """As ``model.backbone.init_cfg`` takes it."""
        if self.checkpoint is None:
            return None
        prefix = "teacher.backbone." if self.epochs else ""
        return dict(type="Pretrained", checkpoint=self.checkpoint, prefix=prefix)

    def problem(self) -> str | None:
        """What is wrong with ``checkpoint``: not there, or of a pretraining that has not ended; None if nothing."""
        if self.checkpoint is None:
            return None
        if not Path(self.checkpoint).is_file():
            return (
                f"pretrained weights not found: {self.checkpoint} (row '{self.row}', {self.architecture}). Origin: "
                f"{self.origin}. Make it with: {self.command}"
            )
        if self.epochs is None:
            return None
        loaded = load_checkpoint(self.checkpoint)
        done, run = loaded.get("meta", {}).get("iter"), recorded(loaded)
        images, batch = run.get("data", {}).get("images"), run.get("batch")
        if done is None or not images or not batch:
            state = "it does not say for how long it was pretrained"
        elif done < (planned := self.epochs * (images // batch)):
            state = f"it has {done} of {planned} iterations"
        else:
            return None
        return (
            f"{self.checkpoint} is not the {self.epochs} epochs of row '{self.row}' ({self.architecture}): {state}. "
            f"Finish it: {self.command} --resume; or give the weights another name, under which they are recorded: "
            f"--cfg-options {INIT_CFG}.checkpoint={Path(self.checkpoint).with_name(f'iter_{done or 0}.pth')}"
        )


def _mst(epochs: int, architecture: str, batch: str) -> Initialisation:
    config = f"mst_{architecture}_{batch}-{epochs}e_in1k"
    origin = "pretraining with this repository; no weights are published"
    command = f"bash tools/pretrain.sh configs/pretrain/{config}.py 8"
    checkpoint = f"work_dirs/{config}/latest.pth"
    return Initialisation(f"mst-{epochs}", architecture, checkpoint, origin, command, epochs)


def _published(
    row: str, architecture: str, origin: str, url: str, format: str = "", file: str | None = None
) -> Initialisation:
    """Somebody's file, converted to timm's keys.

    ``origin`` is method and length, ``url`` of the authors' own documentation, ``format`` for ``--from`` of the
    conversion, where it does not find it itself, and ``file`` the name to save under, where the address does not end
    in a telling one.
    """
    source = f"pretrained/{file or url.rpartition('/')[2]}"
    target = f"pretrained/{row}_{architecture}.safetensors"
    options = f"--from {format} --to timm" if format else "--to timm"
    command = f"python tools/convert_checkpoint.py {source} {target} {options}"
    return Initialisation(row, architecture, target, f"{origin}, {url} (save as {source})", command)


_TEACHER = "esvit --which teacher"
_ALL = (
    *(Initialisation(RANDOM, name) for name in ARCHITECTURES.values()),
    _published(
        "supervised",
        "deit-s",
        "DeiT-S, 300 epochs with labels",
        f"{_FACEBOOK}/deit/deit_small_patch16_224-cd65a155.pth",
    ),
    _published(
        "supervised",
        "swin-t",
        "Swin-T, 300 epochs with labels",
        f"{_SWIN}/v1.0.0/swin_tiny_patch4_window7_224.pth",
    ),
    _published(
        "dino",
        "deit-s",
        "DINO ViT-S/16, 800 epochs (for 300 or fewer, as the paper compares, train "
        "configs/ablation/mask_none_no_decoder.py)",
        f"{_FACEBOOK}/dino/dino_deitsmall16_pretrain/dino_deitsmall16_pretrain.pth",
        "dino",
    ),
    _published(
        "dino",
        "swin-t",
        "EsViT's run of DINO's loss alone (view task only), 300 epochs",
        f"{_ESVIT}_multicrop_epoch300_dino_aug_window7/checkpoint.pth",
        _TEACHER,
        "dino_swin_tiny_checkpoint.pth",
    ),
    _published(
        "moby", "deit-s", "MoBY, 300 epochs", f"{_SWIN}/v1.0.3/moby_deit_small_300ep_pretrained.pth", "moby"
    ),
    _published(
        "moby", "swin-t", "MoBY, 300 epochs", f"{_SWIN}/v1.0.3/moby_swin_t_300ep_pretrained.pth", "moby"
    ),
    _published(
        "esvit",
        "swin-t",
        "EsViT, view and region tasks, 300 epochs",
        f"{_ESVIT}_dense_multicrop_epoch300/checkpoint_best.pth",
        _TEACHER,
        "esvit_swin_tiny_checkpoint_best.pth",
    ),
    _published(
        "ibot",
        "deit-s",
        "iBOT ViT-S/16, 800 epochs, 'backbone (t)'",
        f"{_DRIVE}/1di_xSqKxEwp7TFkis8fWkhYOYH1PagkH",
        "ibot",
        "ibot_vit_small_teacher.pth",
    ),
    _published(
        "ibot",
        "swin-t",
        "iBOT Swin-T/7, 300 epochs, 'backbone (t)'",
        f"{_DRIVE}/17gMXk9yUVk03lkgVoFXY0bgR3WOjdzSE",
        "ibot",
        "ibot_swin_tiny_teacher.pth",
    ),
    *(_mst(100, name, "8xb64") for name in ARCHITECTURES.values()),
    *(_mst(300, name, "8xb128") for name in ARCHITECTURES.values()),
)
INITIALISATIONS = {(init.row, init.architecture): init for init in _ALL}


def architecture_of(cfg: Config) -> str | None:
    """``deit-s`` or ``swin-t``, or None for another backbone."""
    backbone = cfg.model.backbone
    changed = set(backbone.get("model_args") or {}) - {"img_size"}
    return None if changed else ARCHITECTURES.get(backbone.get("model"))


def find(row: str, cfg: Config) -> Initialisation:
    """The initialisation of a row for a config's backbone.

    Raises:
        UserError: The row is unknown, or its weights are not published for this backbone.
    """
    architecture = architecture_of(cfg)
    if row == RANDOM:
        return Initialisation(RANDOM, architecture or "this backbone")
    known = [name for name in ROWS if (name, architecture) in INITIALISATIONS] or [RANDOM]
    if row not in known or architecture is None:
        raise UserError(
            f"--init {row}: there is no such row for {cfg.filename} ({architecture or 'not DeiT-S or Swin-T'}). "
            f"Rows: {', '.join(known)}. Another file: --cfg-options {INIT_CFG}.checkpoint=FILE"
        )
    return INITIALISATIONS[row, architecture]


def work_dir(config: str | Path, row: str, seed: int) -> str:
    """Where a row is trained unless ``--work-dir`` says otherwise."""
    return f"work_dirs/{Path(config).stem}_{row}_seed{seed}"


def use_row(cfg: Config, row: str) -> None:
    """Start from a row: sets ``model.backbone.init_cfg`` and ``work_dir``, nothing else.

    Raises:
        UserError: The config has no pretrained backbone, or :func:`find` has no such row.
    """
    if "init_cfg" not in cfg.get("model", {}).get("backbone", {}):
        raise UserError(
            f"--init: {cfg.filename} has no {INIT_CFG}. It is for fine-tuning; pretraining has --init-from."
        )
    cfg.model.backbone.init_cfg = find(row, cfg).init_cfg
    cfg.work_dir = work_dir(cfg.filename, row, cfg.get("randomness", {}).get("seed", 0))


def checkpoint_of(cfg: Config) -> str | None:
    """The file that a config's backbone starts from."""
    init = cfg.model.backbone.get("init_cfg")
    return str(init["checkpoint"]) if isinstance(init, dict) and "checkpoint" in init else None


def row_of(cfg: Config) -> str:
    """The row whose weights a config starts from, or the path of a file that is no row's."""
    path = checkpoint_of(cfg)
    if path is None:
        return RANDOM
    known = {init.checkpoint: init.row for init in _ALL if init.architecture == architecture_of(cfg)}
    return known.get(path, path)


def problem_of(path: str | Path) -> str | None:
    """What is wrong with a file that is a row's, see :meth:`Initialisation.problem`; None for any other file."""
    return next((init.problem() for init in _ALL if init.checkpoint == str(Path(path))), None)

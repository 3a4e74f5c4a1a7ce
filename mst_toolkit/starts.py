"""What a training starts from: a run, a checkpoint, a hub folder, a row of the comparison, a timm name, or nothing.

The start decides the architecture: nothing else in the front door does.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mst_pretrain.runtime.errors import UserError

if TYPE_CHECKING:
    from mst_pretrain.checkpoints.architecture import Architecture

RANDOM = "random"
NAMES = {  # what people call them: timm's name
    "vit_small": "vit_small_patch16_224",
    "vit-s": "vit_small_patch16_224",
    "deit-s": "vit_small_patch16_224",
    "deit_small": "vit_small_patch16_224",
    "vit_tiny": "vit_tiny_patch16_224",
    "vit-ti": "vit_tiny_patch16_224",
    "vit_base": "vit_base_patch16_224",
    "swin_tiny": "swin_tiny_patch4_window7_224",
    "swin-t": "swin_tiny_patch4_window7_224",
}
SHORT = {"vit_small_patch16_224": "vit-s", "vit_tiny_patch16_224": "vit-ti", "vit_base_patch16_224": "vit-b"}
SHORT |= {"swin_tiny_patch4_window7_224": "swin-t"}
TITLES = {"vit-s": "ViT-S/16", "vit-ti": "ViT-Ti/16", "vit-b": "ViT-B/16", "swin-t": "Swin-T"}
WORDS = {"embed_dim": "width", "depth": "depth", "num_heads": "heads"}
# Published weights by timm's name, where no converted file of the comparison is at hand
ONLINE = {
    ("supervised", "vit_small_patch16_224"): "deit_small_patch16_224.fb_in1k",
    ("supervised", "swin_tiny_patch4_window7_224"): "swin_tiny_patch4_window7_224.ms_in1k",
    ("dino", "vit_small_patch16_224"): "vit_small_patch16_224.dino",
}


@dataclass(frozen=True)
class Start:
    """What a backbone starts from.

    Attributes:
        given: What the user wrote.
        kind: ``random``, ``run``, ``file``, ``row`` or ``timm``.
        model: timm's name of the architecture.
        model_args: What differs from the named model's.
        path: Of the checkpoint; None for random weights and for weights that timm downloads.
        prefix: Of the backbone's keys in it.
        sha256: Of the checkpoint.
        download: timm's name of weights that are not on this machine yet.
        positions: Rule of resizing a ViT's positions, where the checkpoint says it.
    """

    given: str
    kind: str
    model: str
    model_args: dict[str, Any] = field(default_factory=dict)
    path: Path | None = None
    prefix: str | None = None
    sha256: str | None = None
    download: str | None = None
    positions: str | None = None

    @property
    def architecture(self) -> Architecture:
        """The model, without memory for its weights."""
        from mst_pretrain.checkpoints.architecture import Architecture

        return Architecture(self.model, dict(self.model_args))

    @property
    def is_swin(self) -> bool:
        """A Swin, or else a ViT."""
        return self.architecture.is_swin

    @property
    def short(self) -> str:
        """Of the architecture, as folders are named: vit-s, swin-t, or timm's name."""
        plain = self.model.split(".")[0]
        return plain if set(self.model_args) - {"img_size"} else SHORT.get(plain, plain)

    @property
    def title(self) -> str:
        """Of the architecture, as people write it."""
        changed = dict(self.model_args)
        size = f" of {changed.pop('img_size')} px" if "img_size" in changed else ""
        plain = self.model.split(".")[0]
        name = TITLES.get(SHORT.get(plain, plain), plain)
        if "patch_size" in changed:
            name = f"{name.partition('/')[0]}/{changed.pop('patch_size')}"
        words = [f"{WORDS.get(key, key)} {value}" for key, value in changed.items()]
        return f"{name}{size}{' with ' if words else ''}{', '.join(words)}"

    def record(self) -> dict[str, Any]:
        """As ``plan.json`` has it."""
        path = str(self.path) if self.path else None
        found = {"given": self.given, "kind": self.kind, "path": path, "architecture": str(self.architecture)}
        return {**found, "sha256": self.sha256}


def model_named(name: str) -> str:
    """timm's name for what a user calls an architecture.

    Raises:
        UserError: timm has no model of that name.
    """
    import timm

    model = NAMES.get(name.lower(), name)
    if not timm.is_model(model):
        raise UserError(
            f"--arch {name}: there is no such architecture. Use {', '.join(sorted(set(NAMES) - set(SHORT.values())))}, "
            "or a timm name of a ViT or Swin."
        )
    return model


def find_start(given: str | Path, arch: str | None = None) -> Start:
    """The start that a user names.

    Args:
        given: ``random``, a run's folder, a checkpoint or hub folder, ``supervised``, ``dino`` or another row, or a
            timm name.
        arch: Architecture of random weights and of rows; for any other start it must be the start's own.

    Raises:
        UserError: There is no such start, or it is of another architecture.
    """
    text, path = str(given), Path(given)
    if text == RANDOM:
        return Start(text, RANDOM, model_named(arch or "vit_small"))
    if path.exists():
        start = _of_file(text, path)
        if arch is not None and model_named(arch) != start.model.split(".")[0]:
            raise UserError(
                f"{text} is a {start.title}, but --arch says {arch}. Leave --arch out: the start decides the "
                f"architecture; or give --init a {arch}."
            )
        return start
    named = _of_name(text, arch)
    if named is not None:
        return named
    raise UserError(
        f"This training starts from a pretrained backbone, and there is none at {text}. No weights are published "
        "for it. Use your own: --init runs/YOUR_RUN. Start without: --init random. [S01]"
    )


def _of_file(text: str, path: Path) -> Start:
    """A run's newest weights, or any checkpoint that is read."""
    from mst_pretrain.checkpoints.backbone import read_backbone
    from mst_pretrain.runtime.atomic import file_sha256

    kind = "file"
    if path.is_dir() and (path / "checkpoints").is_dir():
        kind, path = "run", run_weights(path)
    elif path.is_dir() and (path / "latest.pth").is_file():
        kind, path = "run", path / "latest.pth"
    backbone = read_backbone(path)
    architecture, file = backbone.architecture, Path(backbone.file.path)
    if path.is_dir() and not (path / "config.json").is_file():
        path = file  # the only checkpoint of a folder; a hub folder is named whole
    return Start(
        text,
        kind,
        architecture.name,
        dict(architecture.arguments),
        path.resolve(),
        backbone.reading.prefix,
        file_sha256(file),
        positions=backbone.positions,
    )


def run_weights(run: Path) -> Path:
    """The checkpoint of a run's folder to start from.

    Raises:
        UserError: It has none.
    """
    for name in ("last.pth", "best.pth"):
        if (run / "checkpoints" / name).is_file():
            return run / "checkpoints" / name
    raise UserError(
        f"{run} has no checkpoint yet. Wait for its first, or continue it: mst pretrain DATA --out {run} --resume"
    )


def _of_name(text: str, arch: str | None) -> Start | None:
    """A row of the comparison whose file is here, or weights that timm can download; else None."""
    import timm

    from mst_transfer.comparison.rows import ARCHITECTURES, INITIALISATIONS

    model = model_named(arch or "vit_small")
    row = INITIALISATIONS.get((text, ARCHITECTURES.get(model, "")))
    if row is not None:
        if row.problem() is None and row.checkpoint:
            found = _of_file(text, Path(row.checkpoint))
            return replace(found, kind="row")
        if (text, model) not in ONLINE:
            raise UserError(str(row.problem()))
        return Start(text, "row", model, download=ONLINE[text, model])
    if (
        "." in text
        and timm.is_model(text.split(".")[0])
        and text in timm.list_pretrained(text.split(".")[0] + "*")
    ):
        return Start(text, "timm", text.split(".")[0], download=text)
    return None


def fetched(start: Start, folder: Path) -> Start:
    """The same start with its weights on this machine, downloaded by timm into ``folder`` if need be.

    Raises:
        UserError: The download fails.
    """
    if start.download is None:
        return start
    import timm

    from mst_pretrain.checkpoints.storage import save_safetensors

    target = folder / f"{start.download}.safetensors"
    if not target.is_file():
        try:
            model = timm.create_model(start.download, pretrained=True, num_classes=0)
        except Exception as error:  # whatever the client of the hub raises
            raise UserError(
                f"--init {start.given}: {start.download} could not be downloaded ({type(error).__name__}). Fetch it on "
                "another machine and give the file: --init FILE; or start from random weights: --init random. [S03]"
            ) from error
        metadata = {"architecture": start.model, "source": start.download}
        folder.mkdir(parents=True, exist_ok=True)
        save_safetensors(dict(model.state_dict()), target, metadata)
    found = _of_file(start.given, target)
    return replace(found, kind=start.kind)

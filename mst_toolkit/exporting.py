"""A run or a checkpoint as what another library reads: timm, transformers, mmdet, mmseg, detectron2, ONNX."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from mst_pretrain.runtime.errors import UserError

from .cards import card, read_json

if TYPE_CHECKING:
    from mst_pretrain.checkpoints.backbone import Backbone

TARGETS = ("timm", "huggingface", "mmdet", "mmseg", "detectron2", "onnx")
HUB_TARGETS = ("timm", "huggingface")
NAMES = ("best.pth", "last.pth")
LOAD = {
    "timm": 'import timm\n\nmodel = timm.create_model("local-dir:{name}", pretrained=True).eval()  # on the hub: '
    '"hf-hub:USER/{name}"\nfeatures = model(images)',
    "huggingface": "from transformers import AutoImageProcessor, AutoModel\n\n"
    'processor = AutoImageProcessor.from_pretrained("{name}")\n'
    'model = AutoModel.from_pretrained("{name}", add_pooling_layer=False).eval()\n'
    'tokens = model(**processor(images=photo, return_tensors="pt")).last_hidden_state',
}


def backbone_folder(checkpoint: str | Path, folder: str | Path, *, licence: str | None = None) -> Path:
    """Write ``config.json``, ``model.safetensors`` and ``README.md`` that timm loads offline.

    Args:
        checkpoint: Any that is read, e.g. of a pretraining; the facts of its run folder go into the card.
        folder: New, empty, or of an earlier call.
        licence: Of the weights; None: the card says that none was chosen.

    Returns:
        ``folder``.

    Raises:
        UserError: The checkpoint cannot be read whole, or the folder cannot be written.
    """
    from mst_pretrain.checkpoints.backbone import read_backbone

    backbone = read_backbone(Path(checkpoint))
    return _write_timm(backbone, Path(folder), run_of(Path(checkpoint)), licence)


def export(
    source: str | Path,
    out: str | Path,
    to: str = "timm",
    *,
    license: str | None = None,
    push: str | None = None,
    image: int | None = None,
) -> Path:
    """Write a run's or a checkpoint's network for another library.

    Args:
        source: Folder of a run, or any checkpoint that is read.
        out: Folder of ``timm`` and ``huggingface``, else a file.
        to: One of :data:`TARGETS`.
        license: Of the weights, for the card; needed by ``push``.
        push: Repository on the Hugging Face hub, made private where it is new.
        image: Side in pixels that an ONNX file is made for; None: that of the model.

    Returns:
        ``out``.

    Raises:
        UserError: The source cannot be read or is of another kind, or the target takes no such network.
    """
    source, out = Path(source), Path(out)
    if to not in TARGETS:
        raise UserError(f"--to {to}: there is no such format. Give one of: {', '.join(TARGETS)}.")
    if push is not None:
        _check_push(to, license)
    checkpoint, run = checkpoint_of(source), run_of(source)
    if to == "onnx":
        return _write_onnx(source, checkpoint, run, out, image)
    if to in HUB_TARGETS:
        backbone = _backbone(checkpoint, run)
        write = _write_timm if to == "timm" else _write_huggingface
        write(backbone, out, run, license)
        if push is not None:
            push_folder(out, push)
        return out
    from mst_pretrain.checkpoints.conversion import write_backbone

    write_backbone(_backbone(checkpoint, run), out, to)
    return out


def checkpoint_of(source: Path) -> Path:
    """The best or last checkpoint of a fine-tuning's folder, the last of a pretraining's; anything else as it is."""
    if not (source / "plan.json").is_file():
        return source
    pretrained = json.loads((source / "plan.json").read_text()).get("task") == "pretrain"
    for name in reversed(NAMES) if pretrained else NAMES:
        if (source / "checkpoints" / name).is_file():
            return source / "checkpoints" / name
    raise UserError(f"{source} has no checkpoint yet. Wait for its first: {source}/checkpoints/last.pth")


def run_of(source: Path) -> Path | None:
    """The folder of the run that a folder or one of its checkpoints belongs to, or None."""
    folders = (source, source.parent, source.parent.parent)
    return next((folder for folder in folders if (folder / "plan.json").is_file()), None)


def _backbone(checkpoint: Path, run: Path | None) -> Backbone:
    """The whole backbone of a checkpoint; of a fine-tuning that lacks a part of it, what to export instead."""
    from mst_pretrain.checkpoints.backbone import read_backbone

    plan = read_json(run / "plan.json") if run else {}
    try:
        return read_backbone(checkpoint)
    except UserError as error:
        task = plan.get("task", "pretrain")
        if task == "pretrain":
            raise
        start = (plan.get("start") or {}).get("path") or "RUN"
        raise UserError(
            f"{run} is a {task} run, and its backbone is not whole enough for another library. Export what it "
            f"started from: mst export {start} DIR"
        ) from error


def _write_timm(backbone: Backbone, folder: Path, run: Path | None, licence: str | None) -> Path:
    from mst_pretrain.checkpoints.conversion import describe
    from mst_pretrain.checkpoints.timm_folder import write_timm_folder

    text = card(
        _title(folder, run), describe(backbone), LOAD["timm"].format(name=folder.name), "timm", run, licence
    )
    return write_timm_folder(backbone, folder, text)


def _write_huggingface(backbone: Backbone, folder: Path, run: Path | None, licence: str | None) -> Path:
    from mst_pretrain.checkpoints.conversion import describe, write_backbone
    from mst_pretrain.runtime.atomic import write_text

    write_backbone(backbone, folder, "huggingface")
    load = LOAD["huggingface"].format(name=folder.name)
    write_text(
        card(_title(folder, run), describe(backbone), load, "transformers", run, licence),
        folder / "README.md",
    )
    return folder


def _title(folder: Path, run: Path | None) -> str:
    return run.name if run is not None and folder.name == "backbone" else folder.name


def _write_onnx(source: Path, checkpoint: Path, run: Path | None, out: Path, image: int | None) -> Path:
    """A segmentor of a run, or else the backbone."""
    from mst_pretrain.runtime.extras import need

    need("onnx", "onnxruntime", "onnxscript")
    if out.suffix != ".onnx":
        raise UserError(f"{out}: an ONNX file ends in .onnx. Give such a name.")
    task = read_json(run / "plan.json").get("task", "pretrain") if run else "pretrain"
    if task == "detection":
        raise UserError(
            f"{run} is a detector, which is not written as ONNX. Its backbone alone: give what it started from, or "
            "predict with: mst predict RUN PHOTOS --out DIR"
        )
    if task == "segmentation":
        from mst_transfer.prediction.onnx_segmentor import segmentor_to_onnx

        assert run is not None
        deviation = segmentor_to_onnx(run / "config.py", checkpoint, out, image)
    else:
        from mst_pretrain.checkpoints.onnx_file import backbone_to_onnx

        deviation = backbone_to_onnx(_backbone(checkpoint, run), out, image)
    print(
        f"written: {out}; largest deviation of onnxruntime from torch {deviation:.1e} of the largest value",
        flush=True,
    )
    return out


def _check_push(to: str, licence: str | None) -> None:
    from mst_pretrain.runtime.extras import need

    if to not in HUB_TARGETS:
        raise UserError(f"--push takes folders: --to {' or --to '.join(HUB_TARGETS)}, not --to {to}.")
    if not licence:
        raise UserError(
            "--push needs --license NAME, such as cc-by-4.0 or other: a licence is yours to choose, none is guessed."
        )
    need("huggingface_hub")


def push_folder(folder: Path, name: str) -> None:
    """Upload a folder to the Hugging Face hub; a repository that is new there is private.

    Raises:
        UserError: The hub cannot be reached, or refuses.
    """
    import huggingface_hub

    try:
        api = huggingface_hub.HfApi()
        api.create_repo(repo_id=name, private=True, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=str(folder), commit_message="Written by the MST toolkit")
    except Exception as error:  # of the network, of the hub, of the name: its classes differ by version
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{folder} was written, but not uploaded to {name}: {reason} Check the network and `hf auth login`, then: "
            f"hf upload {name} {folder}"
        ) from error
    print(f"uploaded: {name} (private where it is new)", flush=True)

"""A network as an ONNX file with any number of images, compared with torch before it is used."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from ..runtime.atomic import replacing
from ..runtime.errors import UserError
from .backbone import Backbone
from .verify import trunk_of

OPSET = 18
LARGEST = 1e-3  # relative deviation above which a file is not kept
BATCHES = (1, 3)  # that are compared


def backbone_to_onnx(backbone: Backbone, path: Path, image: int | None = None) -> float:
    """Write a backbone: ``images`` [B, 3, H, W] normalised to ``features`` [B, D], with any B.

    Args:
        backbone: From :func:`read_backbone`.
        path: To write.
        image: Side in pixels; None: that of the model.

    Returns:
        Largest deviation of onnxruntime's features from torch's, of the largest value.

    Raises:
        UserError: It cannot be exported, or deviates too much; nothing is written then.
    """
    trunk = trunk_of(backbone) if image is None else trunk_of(resized(backbone, image))
    side = (image, image) if image is not None else backbone.architecture.image_size
    return write_onnx(trunk, side, path, "features")


def resized(backbone: Backbone, image: int) -> Backbone:
    """The same backbone for another image size."""
    from .backbone import read_backbone

    return read_backbone(backbone.file.path, image_size=(image,))


@torch.no_grad()
def write_onnx(model: nn.Module, size: tuple[int, int], path: Path, output: str, scale: float = 1.0) -> float:
    """Write a model of one input and one output, and compare it with torch on batches of :data:`BATCHES`.

    Args:
        model: [B, 3, H, W] float32 to one tensor.
        size: (height, width), fixed in the file.
        path: Ends in ``.onnx``.
        output: Name of the output; the input is ``images``.
        scale: Of the standard normal values that are compared.

    Returns:
        Largest deviation, of torch's largest value.
    """
    import onnxruntime

    model = model.eval()
    generator = torch.Generator().manual_seed(0)
    images = scale * torch.randn(max(BATCHES), 3, *size, generator=generator)
    with replacing(path) as part:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                torch.onnx.export(
                    model,
                    (images[:2],),
                    str(part),
                    input_names=["images"],
                    output_names=[output],
                    dynamic_shapes=({0: torch.export.Dim("batch")},),
                    opset_version=OPSET,
                    dynamo=True,
                    external_data=False,
                    verbose=False,
                )
        except Exception as error:  # torch's exporter has no one class for what it cannot trace
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(f"{path} cannot be written as ONNX: {reason} MST_DEBUG=1 shows where.") from error
        session = onnxruntime.InferenceSession(part.read_bytes(), providers=["CPUExecutionProvider"])
        found = [deviation_on(session, model, images[:count]) for count in BATCHES]
        if not max(found) <= LARGEST:
            raise UserError(
                f"{path}: onnxruntime differs from torch by {max(found):.1e} of the largest value (allowed: "
                f"{LARGEST:g}). Nothing was written; please report which model it was."
            )
    return max(found)


def deviation_on(session: object, model: nn.Module, images: Tensor) -> float:
    """Largest difference between onnxruntime's and torch's output over torch's largest value."""
    expected: Tensor = model(images)
    try:
        (output,) = session.run(None, {"images": images.numpy()})  # type: ignore[attr-defined]
    except Exception as error:  # onnxruntime's classes have no public base
        reason = " ".join(str(error).split())
        raise UserError(f"onnxruntime does not take {len(images)} images: {reason}") from error
    if tuple(output.shape) != tuple(expected.shape):
        raise UserError(f"onnxruntime gives {tuple(output.shape)}, torch {tuple(expected.shape)}.")
    return float((torch.from_numpy(output) - expected).abs().max() / expected.abs().max())

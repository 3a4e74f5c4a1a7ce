"""What is in a checkpoint file, and is it healthy?"""

from __future__ import annotations

import argparse
import math
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ..runtime.atomic import file_sha256
from ..runtime.errors import UserError
from ..runtime.terminal import shown_message
from .backbone import PROBLEMS, backbone_at
from .formats import Reading, below, readings
from .reading import CheckpointFile, epoch_of, iteration_of, read_file
from .timm_keys import Dialect, anchors

SHOWN = 200  # characters of a metadata entry
PLAIN = (str, int, float, bool, argparse.Namespace)
ZERO_AT_START = (
    r".*(mask_token|masked_embed|attn_mask|relative_position_index|bias|center|queue_ptr|running_mean|"
    r"num_batches_tracked)$"
)
# told apart from the other metadata: the file's may be another count
COUNTED = ("epoch", "iter", "iteration")


def inspect_checkpoint(path: str | Path) -> dict[str, Any]:
    """Everything worth knowing before a checkpoint is used.

    Args:
        path: File, or Hugging Face folder.

    Returns:
        What ``json.dumps`` takes, norms that are not finite as None:
        ``file``, ``bytes``, ``sha256``, ``tensors``, ``parameters`` (all floating-point values in the file),
        ``precision`` (values by dtype), ``health`` (names without values, with NaN or Inf, and all zero that should not
        be),
        ``backbones`` (format, why, network, prefix, parameters, norms by block; architecture, image_size, patch_size
        and its weights that are missing, mismatched in shape or extra, or architecture None and the problem, and
        ``usable`` False where its weights cannot be read under any architecture),
        ``epoch``, ``iteration``, ``metadata`` without these two and ``others`` (names of what is no plain value).

    Raises:
        UserError: The file cannot be read.
    """
    file = read_file(path)
    said = {str(k): v for k, v in {**file.others, **file.meta}.items() if str(k) not in COUNTED}
    precision: Counter[str] = Counter()
    for value in file.tensors.values():
        precision[str(value.dtype).removeprefix("torch.")] += value.numel()
    return {
        "file": str(file.path),
        "bytes": file.path.stat().st_size,
        "sha256": file_sha256(file.path),
        "tensors": len(file.tensors),
        "parameters": sum(value.numel() for value in file.tensors.values() if value.is_floating_point()),
        "precision": precision,
        "health": health(file.tensors),
        "backbones": [backbone(file, dialect, prefix) for dialect, prefix in anchors(list(file.tensors))],
        "epoch": epoch_of(file),
        "iteration": iteration_of(file),
        "metadata": {key: _short(value) for key, value in said.items() if isinstance(value, PLAIN)},
        "others": [key for key, value in said.items() if not isinstance(value, PLAIN)],
    }


def health(tensors: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """Names of tensors with a NaN or Inf, and of weights that are zero throughout (biases may be)."""
    empty = [key for key, value in tensors.items() if not value.numel() or value.is_meta]
    floats = {key: value for key, value in tensors.items() if value.is_floating_point() and key not in empty}
    floats = {key: value.to_dense().float() for key, value in floats.items()}
    return {
        "no value": empty,
        "nan": [key for key, value in floats.items() if bool(value.isnan().any())],
        "inf": [key for key, value in floats.items() if bool(value.isinf().any())],
        "all zero": [
            k for k, v in floats.items() if not re.fullmatch(ZERO_AT_START, k) and not bool(v.any())
        ],
    }


def backbone(file: CheckpointFile, dialect: Dialect, prefix: str) -> dict[str, Any]:
    """One backbone of the file."""
    try:
        (reading,) = readings(file, prefix=prefix)
    except UserError as error:  # two formats fit
        reading = Reading("unclear", dialect, prefix, None, str(error))
    network = reading.role or file.meta.get("network")
    entry = dict[str, Any](prefix=prefix, dialect=dialect.name, network=network)
    entry |= {"format": reading.format, "why": reading.why}
    entry["usable"] = False
    state = {key: value for key, value in below(file, prefix).items() if not value.is_meta}
    try:
        found = backbone_at(file, reading)
        state, entry["usable"] = found.state, True
        architecture = found.architecture
        entry |= {
            "architecture": str(architecture),
            "image_size": list(architecture.image_size),
            "patch_size": architecture.patch_size,
            **found.differences(architecture.shapes()),
        }
    except UserError as error:
        entry |= {"architecture": None, "problem": str(error)}
    entry["parameters"] = sum(value.numel() for value in state.values() if value.is_floating_point())
    entry["norms"] = norms(state)
    return entry


def norms(state: Mapping[str, Tensor]) -> dict[str, float | None]:
    """L2 norm of all weights of each block, in the order of the network; None where it is not finite."""
    squares: dict[str, float] = {}
    for name, value in state.items():
        if value.is_floating_point():
            block = re.match(r"(blocks\.\d+|layers\.\d+\.(blocks\.\d+|downsample))\.", name)
            part = block[1] if block else name.split(".")[0]
            squares[part] = squares.get(part, 0.0) + float(value.double().square().sum())
    found = {part: squares[part] ** 0.5 for part in sorted(squares, key=_place)}
    return {part: norm if math.isfinite(norm) else None for part, norm in found.items()}


def _place(part: str) -> tuple[int, int, int, str]:
    """Embeddings first, blocks by number with the merging before them, the last norm at the end."""
    if not part.startswith(("blocks.", "layers.")):
        return (2 if part == "norm" else 0), 0, 0, part
    numbers = [int(number) for number in re.findall(r"\d+", part)]
    return 1, numbers[0], numbers[1] if len(numbers) > 1 else -1, part


def _short(value: Any) -> str:
    """One line of a metadata entry."""
    text = " ".join(str(value).split())
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}... ({len(text)} characters)"


def report(found: Mapping[str, Any]) -> str:
    """The result of :func:`inspect_checkpoint` for a person."""
    lines = [
        f"{found['file']}: {found['bytes'] / 2**20:.1f} MiB, {found['tensors']} tensors, "
        f"{found['parameters']:,} parameters ({', '.join(found['precision'])})",
        f"sha256: {found['sha256']}",
    ]
    lines += [f"{name}: {found[name]}" for name in ("epoch", "iteration") if found[name] is not None]
    if not found["backbones"]:
        lines.append("no ViT or Swin backbone of a known dialect")
    for entry in found["backbones"]:
        place = f"the one below '{entry['prefix']}'" if entry["prefix"] else "the one without a prefix"
        network = entry["network"] or (place if len(found["backbones"]) > 1 else "the only network")
        lines += ["", f"backbone, {network}: {entry['format']} ({entry['why']})"]
        if entry["architecture"] is None:
            lines.append(f"  architecture: unknown. {entry['problem']}")
        else:
            height, width = entry["image_size"]
            lines.append(
                f"  architecture: {entry['architecture']}; image {height} x {width}, patch {entry['patch_size']}"
            )
            lines += [
                f"  PROBLEM: {len(entry[name])} {what} (first: {entry[name][:3]})"
                for name, what in PROBLEMS.items()
                if entry[name]
            ]
        lines.append(f"  parameters: {entry['parameters']:,}")
        largest = max(filter(None, entry["norms"].values()), default=1.0)
        for part, norm in entry["norms"].items():
            shown = "not finite" if norm is None else f"{norm:10.3f} {'#' * round(30 * norm / largest)}"
            lines.append(f"  norm {part:24} {shown}")
    lines.append("")
    for name, keys in found["health"].items():
        shown = f" ({', '.join(keys[:3])}{' ...' if len(keys) > 3 else ''})" if keys else ""
        lines.append(f"tensors with {name}: {len(keys)}{shown}")
    if found["metadata"]:
        lines += ["", *(f"{key}: {value}" for key, value in found["metadata"].items())]
    if found["others"]:
        lines.append(f"also in the file: {', '.join(found['others'])}")
    return shown_message("\n".join(lines))


def is_healthy(found: Mapping[str, Any]) -> bool:
    """No NaN, Inf or all-zero weight; of a backbone whose architecture is known, none missing, misshapen or extra."""
    wrong = any(entry.get(name) for entry in found["backbones"] for name in PROBLEMS)
    wrong |= not all(entry["usable"] for entry in found["backbones"])
    return not wrong and not any(found["health"].values())

"""Checkpoints behind an address, for MMEngine: fetched into torch's cache, then read as every other file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch

from ..runtime.errors import UserError
from ..runtime.terminal import shown
from .storage import load_checkpoint

DIGEST = re.compile(r"-([a-f0-9]{8,})\.")  # in a published file's name, of its content
OTHER_SCHEMES = (
    "pavi://",
    r"(\S+\:)?s3://",
    r"(\S+\:)?petrel://",
)  # MMEngine opens them with a reader that runs code


def load_from_url(
    url: str,
    model_dir: str | None = None,
    map_location: Any = None,
    progress: bool = True,
    check_hash: bool = False,
    file_name: str | None = None,
) -> dict[str, Any]:
    """Take the place of ``torch.utils.model_zoo.load_url``, which runs the code in a downloaded file.

    Args:
        url: ``http(s)``.
        model_dir: Cache folder; None: torch's.
        map_location: Device of the tensors.
        progress: Show a bar.
        check_hash: A name as ``resnet50-0676ba61.pth`` says the start of its SHA-256.
        file_name: Name in the cache; None: the address's last part.

    Raises:
        UserError: It cannot be fetched; and what :func:`load_checkpoint` says of the file.
    """
    name = file_name or Path(urlparse(url).path).name
    kept = Path(model_dir or Path(torch.hub.get_dir(), "checkpoints"), name)
    if not kept.is_file():
        digest = DIGEST.search(name) if check_hash else None
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(kept), digest[1] if digest else None, progress)
        except (OSError, ValueError, RuntimeError) as error:
            raise UserError(
                f"{shown(url)} cannot be fetched to {kept.parent} ({error}). Check the address and the network, or "
                "fetch the file yourself and give its path."
            ) from error
    return load_checkpoint(kept, map_location or "cpu")


def load_from_elsewhere(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Refuse an address that only MMEngine's own reader knows.

    Raises:
        UserError: Always.
    """
    raise UserError(
        f"{shown(filename)}: files behind this kind of address are not read, since MMEngine would run the code in them."
        " Fetch the file and give its path."
    )

"""Shards behind URLs: each is fetched once to a local folder, then read like any other."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from pathlib import Path

from rich.progress import track

from ..errors import UserError

URL = re.compile(r"^[a-z0-9]+://|^pipe:")
CACHE = "MST_CACHE"
POLL_SECONDS = 1.0


def is_url(name: str) -> bool:
    """Whether a shard's name is a URL or a ``pipe:`` command."""
    return URL.match(name) is not None


def cache_folder() -> Path:
    """``MST_CACHE``, or ``~/.cache/mst``."""
    return Path(os.environ.get(CACHE) or Path.home() / ".cache" / "mst")


def cached_path(url: str) -> Path:
    """Where a URL's shard is kept: its own name behind a digest of the whole URL."""
    name = re.sub(r"[^\w.-]", "_", url.rpartition("/")[2])[-80:]
    return cache_folder() / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}_{name}"


def fetch(names: list[str]) -> list[Path]:
    """Local paths of shards; those behind URLs are fetched by the first process of the machine.

    A file stands under its name only when it is whole, so an interrupted fetch goes on with the shards that are left.

    Raises:
        UserError: webdataset is not installed, or a URL cannot be read.
    """
    wanted = [name for name in names if is_url(name) and not cached_path(name).is_file()]
    if wanted and int(os.environ.get("LOCAL_RANK", "0")) == 0:
        cache_folder().mkdir(parents=True, exist_ok=True)
        for url in track(wanted, description=f"fetching {len(wanted)} shards to {cache_folder()}"):
            _fetch_one(url, cached_path(url))
    for url in wanted:
        while not cached_path(url).is_file():
            time.sleep(POLL_SECONDS)  # the first process fetches it; its failure ends this one too
    return [cached_path(name) if is_url(name) else Path(name) for name in names]


def _fetch_one(url: str, target: Path) -> None:
    try:
        from webdataset.gopen import gopen
    except ImportError as error:
        raise UserError(
            f"{url} is a URL, which needs the webdataset package: pip install 'mst-toolkit[webdataset]'."
        ) from error
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        with gopen(url) as stream, open(part, "wb") as file:
            shutil.copyfileobj(stream, file, 1 << 20)
            file.flush()
            os.fsync(file.fileno())
        if part.stat().st_size == 0:
            raise OSError("nothing came")
        os.replace(part, target)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{url} cannot be fetched ({str(error) or type(error).__name__}). Check the address and the network; "
            f"what was fetched before stays in {target.parent} ({CACHE} names another folder)."
        ) from error
    finally:
        part.unlink(missing_ok=True)

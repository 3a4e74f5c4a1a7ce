"""From shard patterns and URLs to local tar files. Only braces and URLs need the webdataset package."""

from __future__ import annotations

import glob
import hashlib
import importlib
import os
import re
import shlex
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlparse
from urllib.request import url2pathname

from filelock import FileLock

from ..runtime.atomic import replacing
from ..runtime.errors import UserError
from ..runtime.progress import Progress
from ..runtime.terminal import shown
from .files import first_of

PIPE = "pipe:"
URL = re.compile(r"pipe:|[a-z][a-z0-9+.-]*://")
SHELL = "();<>|&"
CHUNK = 1 << 20
TAR_END = bytes(1024)  # every whole tar ends with two empty blocks


def cache_folder(kind: str) -> Path:
    """Where fetched shards and shard indices are kept: ``$MST_CACHE/KIND``, by default ``~/.cache/mst/KIND``."""
    return Path(os.environ.get("MST_CACHE") or Path.home() / ".cache" / "mst", kind)


def local_shards(spec: str) -> list[Path]:
    """Local files of all shards of a spec, in its order; URLs are fetched first.

    Args:
        spec: Patterns joined by ``::``. Each is a path or a URL of webdataset (``https:``, ``pipe:COMMAND`` ...) and
            may have braces (``{000..146}``); a path may have ``* ? [``.

    Raises:
        UserError: A shard is missing, named twice, or cannot be fetched; webdataset is needed and missing.
    """
    shards: list[Path] = []
    urls: dict[Path, str] = {}
    missing: list[str] = []
    for shard in expand(spec):
        if shard.startswith("file:"):
            shard = url2pathname(urlparse(shard).path)
        if URL.match(shard):
            urls[cached(shard)] = shard
            shards.append(cached(shard))
        elif Path(shard).is_file():
            shards.append(Path(shard))
        elif matches := sorted(glob.glob(shard, recursive=True)):
            shards += map(Path, matches)
        else:
            missing.append(shard)
    if missing:
        raise UserError(
            f"{spec}: {len(missing)} of {len(missing) + len(shards)} shards do not exist: {first_of(missing)}. Copy "
            "them there, or correct the range or the path."
        )
    twice = [str(shard) for shard, count in Counter(shards).items() if count > 1]
    if twice:
        raise UserError(
            f"{spec} names {len(twice)} shards more than once: {first_of(twice)}. Name each once."
        )
    fetch_missing(urls)
    return shards


def expand(spec: str) -> list[str]:
    """Split at ``::`` and expand braces, as webdataset does."""
    if "{" not in spec:
        return spec.split("::")
    expand_urls = _webdataset("shardlists", spec).expand_urls
    try:
        return list(expand_urls(spec))
    except ValueError as error:
        raise UserError(f"{spec}: {error}. Write a range of shards as {{000..146}}.") from error


def cached(url: str) -> Path:
    """Where a URL's shard is kept."""
    base = re.sub(r"[^\w.-]+", "_", url)[-60:].lstrip("._")
    return cache_folder("shards") / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}-{base}"


def fetch_missing(shards: dict[Path, str]) -> None:
    """Fetch every shard (target to URL) that is not there yet; of several processes one does, the others wait."""
    absent = {target: url for target, url in shards.items() if not target.exists()}
    progress = Progress("fetching shards", len(absent))
    for target, url in absent.items():
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"{url}: fetched shards cannot be kept in {target.parent} ({error.strerror}). Set MST_CACHE to a "
                "folder with enough space."
            ) from error
        with FileLock(f"{target}.lock"):
            if not target.exists():
                _fetch(url, target, progress)
        progress.step(1)


def _fetch(url: str, target: Path, progress: Progress) -> None:
    """Through webdataset's opener, or from a command; the target is there when it is whole."""
    opened = _output_of if url.startswith(PIPE) else _webdataset("gopen", url).gopen
    with replacing(target) as part:
        try:
            with opened(url) as stream, open(part, "wb") as file:
                while chunk := stream.read(CHUNK):
                    file.write(chunk)
                    progress.step(size=len(chunk))
            with open(part, "rb") as file:
                file.seek(-min(len(TAR_END), part.stat().st_size), os.SEEK_END)
                if file.read() != TAR_END:
                    raise OSError("what came is not a whole tar file")
        except (OSError, ValueError) as error:
            raise UserError(
                f"{url} cannot be fetched to {target.parent} ({error}; "
                f"{shutil.disk_usage(target.parent).free >> 20} MiB free there). Check the address; MST_CACHE names "
                "another folder."
            ) from error


@contextmanager
def _output_of(url: str) -> Iterator[IO[bytes]]:
    """What the command of ``pipe:COMMAND`` writes, run as one program with its arguments and without a shell.

    Raises:
        UserError: It is more than one command.
        OSError: It cannot be started, or fails.
        ValueError: A quotation mark has no partner.
    """
    words = shlex.shlex(url.removeprefix(PIPE), posix=True, punctuation_chars=SHELL)
    words.whitespace_split, words.commenters = True, ""
    command = list(words)
    if not command or any(word.strip(SHELL) == "" for word in command if word):
        raise UserError(
            f"{shown(url)}: pipe: takes one command and its arguments, and no shell reads it: no | ; & < > or ( ). "
            "Write what is longer into a script: 'pipe:bash fetch.sh {000..146}'"
        )
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield process.stdout
    if process.returncode:
        raise OSError(f"the command ended with {process.returncode}")


def _webdataset(module: str, spec: str) -> Any:
    try:
        return importlib.import_module(f"webdataset.{module}")
    except ImportError as error:
        raise UserError(
            f"{spec}: braces and URLs of shards need the package webdataset. Install it: pip install webdataset"
        ) from error

"""What the site's build does beside MkDocs: pages from outside docs/, and a note on translations that are behind.

MkDocs reads ``docs/`` alone. The measurements, studies and CHANGELOG.md stand elsewhere in the repository: a page of
:data:`INCLUDED` shows such a file's text in place of its own, and every link between these files and ``docs/`` is
rewritten. A link to a file that is not a page (a config, a program) becomes the file's path in code type.
"""

from __future__ import annotations

import posixpath
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(Path(__file__).parent))

import translations  # noqa: E402  (MkDocs loads this file by its path)

INCLUDED = {  # file of the repository: page that shows it
    "benchmarks/README.md": "results/measurements.md",
    "studies/README.md": "results/studies.md",
    "studies/mask_study_cpu/report.md": "results/mask_study.md",
    "studies/street_scenes_cpu/report.md": "results/street_scenes.md",
    "examples/quickstart/shipped/README.md": "results/shipped_checkpoint.md",
    "CHANGELOG.md": "help/changes.md",
    "CONTRIBUTING.md": "help/contributing.md",
}
PICTURES = {
    "studies/mask_study_cpu/report.png": "results/mask_study.png",
    "studies/street_scenes_cpu/report.png": "results/street_scenes.png",
}
ALTERNATE = re.compile(r'<link rel="alternate"[^>]*hreflang[^>]*>')
LINK = re.compile(r"(?P<shown>!?\[[^\]\n]*\])\((?P<target>[^)#\s]+)(?P<anchor>#[^)\s]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the pictures from outside docs/."""
    for name, uri in PICTURES.items():
        files.append(File.generated(config, uri, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Rewrite links that leave docs/; put in the text of a file outside docs/, and a note on a translation behind."""
    uri = page.file.src_uri
    source = Path(page.file.abs_src_path).resolve()
    for name, target in INCLUDED.items():
        if target == uri:
            source = ROOT / name
            markdown = source.read_text(encoding="utf-8")
    text = LINK.sub(lambda match: rewritten(match, source, uri), markdown)
    if source.name.endswith(translations.SUFFIX) and translations.is_behind(source):
        text = translations.NOTE + text
    return text


def on_post_page(output: str, page: Any, config: Any) -> str:
    """Without an address of the site the theme's script would look for a sitemap below each page, and not find it."""
    return output if config.site_url else ALTERNATE.sub("", output)


def rewritten(match: re.Match[str], source: Path, uri: str) -> str:
    """A Markdown link as the page at ``uri`` needs it, which has the text of the file ``source``."""
    target = match["target"]
    place = (source.parent / target).resolve()
    if re.match(r"[a-z]+:", target) or not place.is_relative_to(ROOT):
        return match[0]
    name = place.relative_to(ROOT).as_posix()
    if name.startswith("docs/"):
        found = name.removeprefix("docs/")
    elif name in INCLUDED or name in PICTURES:
        found = (INCLUDED | PICTURES)[name]
    elif place.exists():
        shown = match["shown"].strip("![]").strip("`")
        return f"`{name}`" if shown == name else f"{shown} (`{name}`)"
    else:
        return match[0]
    start = posixpath.dirname(uri) or "."
    return f"{match['shown']}({posixpath.relpath(found, start)}{match['anchor'] or ''})"

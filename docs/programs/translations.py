"""Which translated pages are behind their English page.

A page ``NAME.zh.md`` is the Chinese of ``NAME.md``. Its front matter holds the digest of the English page that was
translated. Where the English page has changed since, the site shows a note above the translation.

    python docs/programs/translations.py            # list the pages that are behind; exit code 1 if there are any
    python docs/programs/translations.py --done FILE.zh.md ...    # FILE was brought up to date: write the new digest
    python docs/programs/translations.py --later FILE.zh.md ...   # FILE stays behind for now, and the site says so
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1]
SUFFIX = ".zh.md"
NOTE = '!!! warning "本页落后于英文版"\n    翻译之后英文页面有改动。请以英文版为准。\n\n'
DIGEST = re.compile(r"^english_sha256: ([0-9a-f]{64})$", re.MULTILINE)
LATER = re.compile(r"^behind: ([0-9a-f]{64})$\n", re.MULTILINE)


def pages() -> list[Path]:
    """Every translated page."""
    return sorted(DOCS.rglob(f"*{SUFFIX}"))


def english_of(page: Path) -> Path:
    """The English page of a translation."""
    return page.with_name(page.name.removesuffix(SUFFIX) + ".md")


def digest(page: Path) -> str:
    """SHA-256 of a page's text, without white space at the ends of lines and of the page."""
    lines = [line.rstrip() for line in page.read_text(encoding="utf-8").strip().splitlines()]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def front_matter(page: Path) -> str:
    """The YAML between the two lines ``---`` at the beginning of a page; empty where there is none."""
    found = re.match(r"---\n(.*?\n)---\n", page.read_text(encoding="utf-8"), re.DOTALL)
    return found[1] if found else ""


def is_behind(page: Path) -> bool:
    """Whether the English page is another one than the one that was translated."""
    found = DIGEST.search(front_matter(page))
    return found is None or found[1] != digest(english_of(page))


def is_admitted(page: Path) -> bool:
    """Whether the front matter says that the page is behind the English page as it is now."""
    found = LATER.search(front_matter(page))
    return found is not None and found[1] == digest(english_of(page))


def mark(page: Path, done: bool) -> None:
    """Write into the front matter that a page is up to date, or that it stays behind for now."""
    text, now = page.read_text(encoding="utf-8"), digest(english_of(page))
    matter = front_matter(page)
    body = text[len(f"---\n{matter}---\n") :] if matter else "\n" + text
    matter = LATER.sub("", matter)
    if done:
        matter = DIGEST.sub("", matter).strip("\n")
        matter = f"{matter}\nenglish_sha256: {now}\n".lstrip("\n")
    else:
        matter += f"behind: {now}\n"
    page.write_text(f"---\n{matter}---\n{body}", encoding="utf-8")


def main() -> int:
    """List the pages that are behind, or mark some."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--done", nargs="+", type=Path, default=[], metavar="FILE")
    parser.add_argument("--later", nargs="+", type=Path, default=[], metavar="FILE")
    args = parser.parse_args()
    for page in args.done:
        mark(page, done=True)
    for page in args.later:
        mark(page, done=False)
    behind = [page for page in pages() if is_behind(page)]
    for page in behind:
        told = " (marked)" if is_admitted(page) else ""
        print(f"{page.relative_to(DOCS)} is behind {english_of(page).relative_to(DOCS)}{told}")
    return 1 if any(not is_admitted(page) for page in behind) else 0


if __name__ == "__main__":
    sys.exit(main())

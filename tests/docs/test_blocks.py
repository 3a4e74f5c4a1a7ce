"""Every block of the documentation that is marked as tested is run on small data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mst_toolkit
from mst_toolkit import training
from tests.docs.blocks import DOCS, Block, World, blocks_of, commands_of, differs
from tests.forked import Forked

PAGES = [page for page in sorted(DOCS.rglob("*.md")) if blocks_of(page)]
CLASSES = ("scratch", "dent")


def draw(path: Path, seed: int) -> list[float]:
    """A photo with one bright box; returns the box, x y w h."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 90, (48, 64, 3), np.uint8)
    x, y, width, height = (int(v) for v in (*rng.integers(4, 20, 2), *rng.integers(12, 24, 2)))
    pixels[y : y + height, x : x + width] += 150
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return [float(x), float(y), float(width), float(height)]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Photos, a Roboflow export and images with masks, under the names that the pages use."""
    root = tmp_path_factory.mktemp("docs")
    for number in range(16):
        draw(root / f"photos/p{number}.png", number)
    for number in range(2):
        draw(root / f"new_photos/n{number}.png", 50 + number)
    for split, count, first in (("train", 8, 0), ("valid", 4, 100)):
        images, annotations = [], []
        for number in range(first, first + count):
            box = draw(root / f"parts_coco/{split}/{number}.png", 100 + number)
            images.append({"id": number, "file_name": f"{number}.png", "width": 64, "height": 48})
            entry = {"id": number + 1, "image_id": number, "category_id": 1 + number % 2, "bbox": box}
            annotations.append(entry | {"area": box[2] * box[3], "iscrowd": 0, "segmentation": []})
        categories = [{"id": index + 1, "name": name} for index, name in enumerate(CLASSES)]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (root / f"parts_coco/{split}/_annotations.coco.json").write_text(json.dumps(content))
    (root / "cracks/masks").mkdir(parents=True)
    for number in range(10):
        x, y, width, height = (int(v) for v in draw(root / f"cracks/images/{number}.png", 200 + number))
        mask = np.zeros((48, 64), np.uint8)
        mask[y : y + height, x : x + width] = 255
        Image.fromarray(mask).save(root / f"cracks/masks/{number}.png")
    return World(root)


@pytest.fixture(autouse=True)
def in_the_world(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder of the data is the working directory, and a training is a process that need not import everything."""

    def forked(command: Sequence[str], environment: dict[str, str], quiet: bool) -> int:
        tool, *arguments = command[1:]
        code, output = Forked(tool, *arguments, folder=world.root).result()
        if not quiet or code:
            print(output, end="")
        return code

    monkeypatch.chdir(world.root)
    monkeypatch.setattr(training, "run_child", forked)
    monkeypatch.setattr(training, "write_page", lambda folder: None)  # guides/evaluate.md writes it
    for name in ("pretrain", "finetune", "predict"):
        monkeypatch.setattr(mst_toolkit, name, world.call(name))


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(DOCS)) for page in PAGES])
def test_the_blocks_of_a_page_run(page: Path, world: World) -> None:
    """Somebody would copy a block that does not work, or look for lines that are no longer printed."""
    names: dict[str, object] = {}
    for block in filter(lambda block: block.can_run, blocks_of(page)):
        world.provide(block.text)
        if block.kind == "python":
            exec(compile("\n" * (block.line - 1) + block.text, str(page), "exec"), names)
            continue
        for command, expected in commands_of(block.text):
            found = differs(expected, world.run(command))
            assert found is None, f"{page.relative_to(DOCS)}, line {block.line}: $ {command}\n{found}"


def test_a_block_that_is_wrong_is_found(world: World, tmp_path: Path) -> None:
    """The comparison would let every page pass."""
    page = tmp_path / "page.md"
    page.write_text(
        "A page.\n\n<!-- tested -->\n```console\n$ mst a \\\n    b\none ... two\n...\nthree\n```\n"
    )
    (block,) = blocks_of(page)
    assert block == Block(page, 5, "console", "$ mst a \\\n    b\none ... two\n...\nthree\n")
    assert commands_of(block.text) == [("mst a b", ["one ... two", "...", "three"])]
    assert differs(["one ... two", "...", "three"], "one and two\nfour\n") is None
    assert differs(["one ... two"], "one and three\n") == (
        "line 1: the page says 'one ... two', printed was 'one and three'"
    )
    assert differs(["one", "two"], "one\n") == "line 2: the page says 'two', printed was '(no such line)'"
    with pytest.raises(SystemExit):
        world.run("mst predict runs/none --no-such-option --out x")


def test_there_are_marked_blocks() -> None:
    """A change of the marker would leave nothing to run."""
    assert sum(len(blocks_of(page)) for page in PAGES) >= 15

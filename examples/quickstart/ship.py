"""Make the checkpoint that the demonstration ships, with its card and its log, from a finished pretraining.

    python -m examples.quickstart.ship work_dirs/shipped                          # the file, to be judged
    python -m examples.quickstart.judge --checkpoint FILE --seeds 11 12 13 14 15 --out judged.json
    python -m examples.quickstart.ship work_dirs/shipped --table judged.json      # the same file, and its whole card

The teacher's backbone alone is shipped, in timm's names and float32. The card publishes the table as it is.
"""

from __future__ import annotations

import argparse
import gzip
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mst_pretrain.checkpoints.backbone import read_backbone
from mst_pretrain.checkpoints.conversion import write_backbone
from mst_pretrain.runtime.atomic import file_sha256, replacing, write_text
from mst_pretrain.runtime.errors import UserError, run_cli
from mst_pretrain.runtime.run_files import LATEST

from .demo import JUDGED_FILE, SHIPPED_FILE, SHIPPED_FOLDER
from .drawn import OF_SHIPPED
from .judge import markdown, markdown_of_weak

LIMIT = 8_000_000  # bytes
LOG = "training_log.jsonl.gz"
COMMANDS = """python -m examples.quickstart.drawn work_dirs/street_photos
python tools/train.py configs/quickstart/shipped.py
python -m examples.quickstart.ship work_dirs/shipped
python -m examples.quickstart.judge --checkpoint {file} --seeds 11 12 13 14 15"""


def ship(work_dir: Path, folder: Path = SHIPPED_FOLDER, table: Path | None = None) -> Path:
    """Write checkpoint, log, table and card into a folder.

    Args:
        work_dir: Of the finished pretraining.
        folder: Where to.
        table: Of ``judge.py``, of this very file; None writes a card without it.

    Returns:
        The checkpoint.

    Raises:
        UserError: The checkpoint is missing, unfinished, or too large, or the table was measured with another file.
    """
    source = work_dir / LATEST
    if not source.is_file():
        raise UserError(f"{source} does not exist. Give the work directory of a finished pretraining.")
    log = training_log(work_dir)
    backbone = read_backbone(source)
    steps, planned = int(backbone.file.meta["iter"]), planned_steps(work_dir)
    if steps != planned:
        raise UserError(
            f"{source} is of step {steps} of {planned}: its schedule has not ended. Continue it with --resume."
        )
    data = f"{OF_SHIPPED['count']} street scenes, drawn with seed {OF_SHIPPED['seed']}"  # not a path of this machine
    backbone.file = replace(backbone.file, meta={**backbone.file.meta, "data": data})
    target = folder / SHIPPED_FILE.name
    with replacing(target) as part:
        whole = part.with_suffix(".safetensors")  # the suffix tells the format
        try:
            write_backbone(backbone, whole)
            refuse_large(whole)
            whole.replace(part)
        finally:
            whole.unlink(missing_ok=True)
    digest = file_sha256(target)
    judged = None if table is None else read_table(table, digest)
    with replacing(folder / LOG) as part, open(part, "wb") as stream:
        text = "".join(json.dumps(line) + "\n" for line in log).encode()
        stream.write(gzip.compress(text, mtime=0))  # the same log gives the same bytes
    if table is not None and table.resolve() != (folder / JUDGED_FILE.name).resolve():
        shutil.copyfile(table, folder / JUDGED_FILE.name)
    write_text(card(target, digest, log, steps, judged), folder / "README.md")
    return target


def refuse_large(path: Path) -> None:
    """Raise a UserError for a file that a repository should not carry."""
    size = path.stat().st_size
    if size > LIMIT:
        raise UserError(
            f"the checkpoint has {size:,} bytes, at most {LIMIT:,} are shipped. Pretrain a smaller network."
        )


def training_log(work_dir: Path) -> list[dict[str, Any]]:
    """What the run logged, in the order of its steps; of a step that was run twice, the last.

    Raises:
        UserError: There is none.
    """
    lines: dict[int, dict[str, Any]] = {}
    for path in sorted(work_dir.glob("*/vis_data/scalars.json")):
        for text in path.read_text().splitlines():
            line = json.loads(text)
            lines[line["step"]] = {key: _rounded(value) for key, value in line.items()}
    if not lines:
        raise UserError(
            f"{work_dir} holds no log (*/vis_data/scalars.json). Give a pretraining's work directory."
        )
    return [lines[step] for step in sorted(lines)]


def _rounded(value: Any) -> Any:
    return float(f"{value:.5g}") if isinstance(value, float) else value


def planned_steps(work_dir: Path) -> int:
    """The length of the schedules by the config that the run wrote."""
    from mmengine.config import Config

    newest = max(work_dir.glob("*/vis_data/config.py"))
    return int(Config.fromfile(newest).train_cfg.max_iters)


def read_table(path: Path, digest: str) -> dict[str, Any]:
    """A table of ``judge.py``.

    Raises:
        UserError: It was made of another file.
    """
    judged: dict[str, Any] = json.loads(path.read_text())
    if judged["sha256"] != digest:
        raise UserError(
            f"{path} judges another file (sha256 {judged['sha256'][:12]}, not {digest[:12]}). Ship the work directory "
            "that was judged."
        )
    return judged


def card(
    target: Path, digest: str, log: Sequence[dict[str, Any]], steps: int, judged: dict[str, Any] | None
) -> str:
    """The README beside the checkpoint, in Markdown."""
    seconds = sum(line["time"] for line in log) * steps / len(log)

    def fall(key: str) -> str:
        return f"{log[0][key]:.2f} -> {log[-1][key]:.2f}"

    return f"""# {target.name}

A ViT of width 192 and depth 4 with patches of 8 pixels, pretrained with MST on {OF_SHIPPED["count"]:,} street scenes
that a program of this project drew (seed {OF_SHIPPED["seed"]}). No label and no photograph was used. The quickstart
reads it; so does every tool that takes a checkpoint. Licence: that of the project (Apache-2.0).

| | |
|---|---|
| file | `{target.name}`, {target.stat().st_size:,} bytes, float32, timm's names |
| sha256 | `{digest}` |
| training | {steps:,} steps of 16 pictures, seed 1, one CPU core, bfloat16, {seconds / 60:.0f} minutes |
| loss | match {fall("loss_ce")}, restore {fall("loss_rec")} |
| log | `{LOG}`: one JSON object every 50 steps |

```
{COMMANDS.format(file=f"examples/quickstart/shipped/{target.name}")}
```

## How good it is

{judgement(judged)}

## Limits

Scenes, network, length and head were chosen on seeds 1 to 3. The network has seen drawn scenes only, at 64 pixels. It
is made for the demonstration and says nothing about photographs; the figures are not the MST paper's and do not compare
with them. For photographs, pretrain on photographs.
"""


def judgement(judged: dict[str, Any] | None) -> str:
    """The judged table in words and Markdown."""
    if judged is None:
        return "Not judged yet."
    outcome = "The criterion was met." if judged["met"] else "The criterion was NOT met:"
    missed = "".join(f"\n- {failure}" for failure in judged["failures"])
    return f"""Judged once, on seeds that chose nothing, after scenes, network, length and head had been frozen in a
commit. Criterion: {judged["criterion"]}. {outcome}{missed}

mIoU in per cent of frozen patch features of four blocks with a linear head in closed form, on
{judged["validation scenes"]} validation scenes whose colours and spatial periods occur in no scene that the network or
a head has seen; every seed draws its own labelled scenes, validation scenes and random start.

{markdown(judged["seeds"])}

The gain depends on the head. With a ridge of {judged["weak ridge"]} instead of {judged["ridge"]} (of the rows' weight,
on standardised features) the mean of the seeds is:

{markdown_of_weak(judged["seeds"])}"""


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, ship."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("work_dir", type=Path, help="of the finished pretraining")
    parser.add_argument("--out", type=Path, default=SHIPPED_FOLDER)
    parser.add_argument("--table", type=Path, help="what judge.py wrote of this file")
    args = parser.parse_args(argv)
    target = ship(args.work_dir, args.out, args.table)
    print(f"{target}: {target.stat().st_size:,} bytes, sha256 {file_sha256(target)}")


if __name__ == "__main__":
    run_cli(main)

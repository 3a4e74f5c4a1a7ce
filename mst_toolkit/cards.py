"""The model card: what was measured or "not measured", data, recipe, licence, limits. Nothing in it is guessed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mst_pretrain.runtime import json_text

NOT_MEASURED = "Not measured."
LIMITS = (
    "A backbone without a classifier: it gives features, and no classes. It knows what its training images showed; "
    "how it does on other images was not tested. Biases of the images are biases of the features."
)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object, or an empty one where there is no such file."""
    return json_text.read_json(path) if path.is_file() else {}


def measured(metrics: Mapping[str, Any]) -> str:
    """The main score with its interval and baseline in per cent, as in ``metrics.json``; or that there is none."""
    main = metrics.get("main")
    if not main:
        return NOT_MEASURED
    interval = (
        f" (95 % interval {main['low']:.1f} to {main['high']:.1f})" if main.get("low") is not None else ""
    )
    baseline = main.get("baseline")
    beside = "" if baseline is None else f"; trivial baseline {baseline:.1f} %"
    images = f", {metrics['images']} images" if metrics.get("images") else ""
    return f"{main['name']} {main['value']:.1f} %{interval}{beside}{images}."


def data_of(plan: Mapping[str, Any], metadata: Mapping[str, str]) -> str:
    """What the images were, as the plan or the checkpoint says."""
    data = plan.get("data") or {}
    if data:
        counts = ", ".join(
            f"{data[name]} {name}" for name in ("train", "val") if isinstance(data.get(name), int)
        )
        return f"{data.get('layout', 'images')}, {Path(str(data.get('root', ''))).name}" + (
            f" ({counts})" if counts else ""
        )
    return metadata.get("data", "Not recorded in the checkpoint.")


def recipe_of(plan: Mapping[str, Any], metadata: Mapping[str, str]) -> str:
    """The decisions of the plan, or what the checkpoint says of its training."""
    decisions = [f"{one['key']} = {one['value']}" for one in plan.get("decisions", ())]
    said = [f"{key} {metadata[key]}" for key in ("method", "epoch", "iteration") if key in metadata]
    return "; ".join([*said, *decisions]) or "Not recorded in the checkpoint."


def licence_text(licence: str | None) -> str:
    """The sentence about the licence; without one, that none was chosen."""
    if licence:
        return f"{licence}, chosen by whoever exported these weights."
    return (
        "No licence was chosen. Ask whoever made these weights before using them; `mst export RUN DIR --license NAME` "
        "writes one here."
    )


def card(
    name: str, metadata: Mapping[str, str], load: str, library: str, run: Path | None, licence: str | None
) -> str:
    """README.md.

    Args:
        name: Title.
        metadata: Of the weights; see :func:`mst_pretrain.checkpoints.conversion.describe`.
        load: Python that loads it.
        library: ``timm`` or ``transformers``.
        run: Folder of the run, whose ``plan.json`` and ``metrics.json`` are read where they are.
        licence: As the user gave it; None: none was chosen.
    """
    plan = read_json(run / "plan.json") if run else {}
    metrics = read_json(run / "metrics.json") if run else {}
    rows = "\n".join(f"| {key} | {value} |" for key, value in metadata.items() if key != "format")
    front = f"license: {licence.lower()}\n" if licence else ""
    return f"""---
library_name: {library}
pipeline_tag: image-feature-extraction
tags: [self-supervised-learning, vision]
{front}---

# {name}

A backbone without a classifier, written by the MST toolkit.

```python
{load}
```

**Measured.** {measured(metrics)}

**Data.** {data_of(plan, metadata)}

**Recipe.** {recipe_of(plan, metadata)}

**Licence.** {licence_text(licence)}

**Limits.** {LIMITS}

| what | value |
|---|---|
{rows}
"""

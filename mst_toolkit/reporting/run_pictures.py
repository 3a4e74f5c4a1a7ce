"""The pictures of one run: its data with labels, truth beside prediction, and what a pretrained network sees."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from mst_pretrain.runtime.errors import UserError

from .image_ranks import MEANING, best_median_worst, image_scores, match_paths, spread
from .reported_run import ReportedRun
from .shown import PagePart, PictureRow, Shown, without

DATA_PICTURES = 12
EACH = 8  # of best, median and worst
SEEN = 5  # images with attention, mask, restoration
POOL = 300  # images among which neighbours are looked for
QUERIES, NEIGHBOURS = 6, 5


def data_part(run: ReportedRun) -> PagePart:
    """Twelve training pictures; of labelled data with their labels, every class among them."""
    part = PagePart()
    with without(part, "Pictures of the data are"):
        if run.task == "pretrain":
            source = _source(run)
            places = spread(len(source), DATA_PICTURES)
            shown = [_photo(source, place) for place in places]
            part.sentences.append(f"{len(shown)} of {len(source):,} images, without labels.")
        else:
            from .labelled import LabelledSet, draw_truth

            data = LabelledSet(run.settings, "train_dataloader")
            images = [data[place] for place in data.choose(DATA_PICTURES)]
            shown = [Shown(draw_truth(one, data.colors), one.path.name) for one in images]
            part.colors = data.legend()
            part.sentences.append(
                f"{len(shown)} of {len(data):,} training images with their labels drawn. Are they right? Select one to "
                "enlarge it."
            )
        part.rows.append(PictureRow(shown))
    return part


def example_parts(run: ReportedRun) -> list[PagePart]:
    """The best, the median and the worst eight validation images, truth beside prediction."""
    whole = PagePart("Truth beside prediction")
    parts: list[PagePart] = []
    with without(whole, "Pictures of truth beside prediction are"):
        if run.checkpoint is None:
            raise UserError("the run has no checkpoints/best.pth or last.pth")
        from mst_transfer.prediction import Predictor

        from .labelled import LabelledSet, draw, draw_truth

        data = LabelledSet(run.settings, "test_dataloader")
        groups, scores = _groups(run, data.paths(), whole)
        predictor = Predictor(run.settings, run.checkpoint)
        whole.colors = data.legend()
        for name, places in groups.items():
            part = PagePart(name)
            for place in places:
                one = data[place]
                pictures = [
                    Shown(draw_truth(one, data.colors), "truth"),
                    Shown(draw(one.pixels, predictor(one.path), data.colors), "prediction"),
                ]
                told = f" ({scores[place]:.0f})" if place in scores else ""
                part.rows.append(PictureRow(pictures, f"{one.path.name}{told}"))
            parts.append(part)
    return [whole, *parts]


def _groups(
    run: ReportedRun, paths: list[Any], part: PagePart
) -> tuple[dict[str, list[int]], dict[int, float]]:
    """Places in the data set by group, and the score of each."""
    if not run.per_image:
        part.left_out.append(
            "The best and the worst images are not known without per_image.npz (mst evaluate writes it); these are "
            "spread over the validation images."
        )
        return {"Some validation images": spread(len(paths), EACH)}, {}
    scores = image_scores(run.per_image)
    match = match_paths([str(name) for name in run.per_image["images"]], paths)
    if not match:
        raise UserError("per_image.npz is of other images than the config's test_dataloader")
    known = np.where([number in match for number in range(len(scores))], scores, np.nan)
    groups = best_median_worst(known, EACH)
    part.sentences.append(f"Images are ordered by {MEANING[run.task]}; the number stands behind the name.")
    names = {"best": "The best", "median": "In the middle", "worst": "The worst"}
    placed = {names[name]: [match[number] for number in places] for name, places in groups.items()}
    return placed, {match[number]: float(scores[number]) for number in match}


def seen_part(run: ReportedRun) -> PagePart:
    """Attention, hidden patches, restoration and feature colours of a pretraining's own images."""
    part = PagePart("What the network sees")
    with without(part, "Attention, hidden patches, restoration and feature colours are"):
        from .pictures import COLUMNS, TITLES, load_pretraining, see_images

        source, model = _source(run), load_pretraining(run.folder, run.config)
        places = spread(len(source), SEEN)
        seen = see_images(model, [_read(source, place) for place in places])
        for name in [column for column in COLUMNS if getattr(seen[0], column) is None]:
            part.left_out.append(f"There is no picture of '{TITLES[name]}': the config trains without it.")
        for place, one in zip(places, seen, strict=True):
            shown = [name for name in COLUMNS if getattr(one, name) is not None]
            pictures = [Shown(_enlarged(getattr(one, name)), TITLES[name]) for name in shown]
            part.rows.append(PictureRow(pictures, _name(source, place)))
        share = np.mean([one.hidden_share for one in seen])
        part.sentences.append(
            f"Bright: where the teacher's last block looks. Gray: hidden from the student, {100 * share:.0f} % of "
            "the patches here. Equal colours in the last picture are similar features, also between images."
        )
    return part


def neighbour_part(run: ReportedRun) -> PagePart:
    """Images beside those with the nearest features."""
    part = PagePart("Nearest neighbours")
    with without(part, "Nearest neighbours are"):
        from .pictures import load_pretraining, nearest_neighbours

        source, model = _source(run), load_pretraining(run.folder, run.config)
        places = spread(len(source), POOL)
        if len(places) < 2:
            raise UserError("there is one image only")
        images = [_read(source, place) for place in places]
        queries = spread(len(images), QUERIES)
        for query, found in zip(queries, nearest_neighbours(model, images, queries, NEIGHBOURS), strict=True):
            row = [Shown(_small(images[place])) for place in (query, *found)]
            part.rows.append(PictureRow(row, _name(source, places[query])))
        part.sentences.append(
            f"The first image of a row, and behind it the nearest of {len(images):,} by the teacher's feature. Rows "
            "of one kind of thing are a good sign; rows of one colour say that little else was learned."
        )
    return part


def _source(run: ReportedRun) -> Any:
    from mst_pretrain.data.sources import open_source

    return open_source(run.settings.train_dataloader.dataset.data_root)


def _read(source: Any, place: int) -> Image.Image:
    from mst_pretrain.data.decode import decode_rgb

    return decode_rgb(source.read(place), source.name(place))


def _photo(source: Any, place: int) -> Shown:
    return Shown(_small(_read(source, place)), _name(source, place))


def _name(source: Any, place: int) -> str:
    return str(source.name(place)).rsplit("/", 1)[-1]


def _small(image: Image.Image) -> Image.Image:
    """At most 480 px, so that hundreds fit into memory; a very small one enlarged by a whole factor."""
    image = image.copy()
    image.thumbnail((480, 480))
    return _enlarged(np.asarray(image.convert("RGB")))


def _enlarged(pixels: np.ndarray) -> Image.Image:
    image = Image.fromarray(pixels)
    factor = max(1, round(200 / max(image.size)))
    return image.resize((factor * image.width, factor * image.height), Image.Resampling.NEAREST)

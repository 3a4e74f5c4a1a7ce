"""Predictions drawn on their images."""

from __future__ import annotations

import colorsys
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

from .predictions import Detections, Segmentation

Color = tuple[int, int, int]
Rectangle = tuple[float, float, float, float]  # left, top, right, bottom
ALPHA = 0.5  # of a mask's colour
LEGIBLE = 480  # short side in pixels from which on labels can be read


def class_colors(count: int, palette: np.ndarray | None = None) -> np.ndarray:
    """A colour per class, uint8 [count, 3]: the data set's own, else hues spread so that neighbours differ."""
    if palette is not None and len(palette) >= count:
        return np.asarray(palette[:count], np.uint8)
    golden = (5**0.5 - 1) / 2
    colors = [
        colorsys.hsv_to_rgb((i * golden) % 1, (0.85, 0.6)[i % 2], (0.95, 0.75)[i // 2 % 2])
        for i in range(count)
    ]
    return np.round(255 * np.asarray(colors)).astype(np.uint8).reshape(count, 3)


def draw_detections(
    image: np.ndarray,
    found: Detections,
    colors: np.ndarray,
    score_threshold: float = 0.3,
    legible: int = LEGIBLE,
    with_scores: bool = True,
) -> Image.Image:
    """Masks, boxes, and class names with scores; objects of one class differ in shade.

    Args:
        image: RGB uint8 [H, W, 3]; a small one is enlarged by a whole factor.
        found: Predictions for it.
        colors: uint8 [C, 3], see :func:`class_colors`.
        score_threshold: Below it nothing is drawn.
        legible: A short side of this many pixels is not enlarged.
        with_scores: Whether scores stand behind the names; labels given by people have none.
    """
    factor = _enlargement(image, legible)
    order = [i for i in np.argsort(found.scores, kind="stable") if found.scores[i] >= score_threshold]
    shades = _shades(found.labels, order[::-1], colors)
    pixels = _enlarged(image, factor, cv2.INTER_CUBIC).astype(np.float32)
    line = max(1, round(min(pixels.shape[:2]) / 300))
    for i in order if found.masks is not None else ():  # the surest comes last, on top
        assert found.masks is not None
        mask = _enlarged(found.masks[i].astype(np.uint8), factor, cv2.INTER_NEAREST)
        color = np.asarray(shades[i], np.float32)
        pixels[mask > 0] = (1 - ALPHA) * pixels[mask > 0] + ALPHA * color
        contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(pixels, contours, -1, color.tolist(), line)
    picture = Image.fromarray(np.round(pixels).clip(0, 255).astype(np.uint8))
    canvas = ImageDraw.Draw(picture)
    boxes = factor * found.boxes.astype(np.float64)
    for i in order:
        if (boxes[i, 2:] > boxes[i, :2]).all():
            canvas.rectangle(boxes[i].tolist(), outline=shades[i], width=line)
    taken: list[Rectangle] = []
    for i in reversed(order):  # the surest has the first choice of a place
        text = found.classes[found.labels[i]] + (f" {found.scores[i]:.2f}" if with_scores else "")
        _draw_label(canvas, text, boxes[i].tolist(), shades[i], picture.size, taken)
    return picture


def draw_segmentation(image: np.ndarray, found: Segmentation, colors: np.ndarray) -> Image.Image:
    """The label map over the image, and beside it the names, colours and shares of the classes that occur.

    Args:
        image: RGB uint8 [H, W, 3]; a small one is enlarged by a whole factor.
        found: Predictions for it.
        colors: uint8 [C, 3].
    """
    factor = _enlargement(image)
    image = _enlarged(image, factor, cv2.INTER_CUBIC)
    colored = colors[_enlarged(found.label_map, factor, cv2.INTER_NEAREST)]
    overlay = np.round((1 - ALPHA) * image + ALPHA * colored).astype(np.uint8)
    rows = sorted(((share, i) for i, share in enumerate(found.shares.values()) if share > 0), reverse=True)
    height, width = image.shape[:2]
    font = _font(max(9, min(height / 26, height / (1.7 * len(rows) + 1))))
    line, pad = 1.6 * font.size, 0.6 * font.size
    texts = [f"{found.classes[i]}  {100 * share:.1f} %" for share, i in rows]
    panel = round(2 * pad + 1.6 * font.size + max(font.getlength(text) for text in texts))
    picture = Image.new("RGB", (width + panel, max(height, round(line * len(rows) + 2 * pad))), "white")
    picture.paste(Image.fromarray(overlay), (0, 0))
    canvas = ImageDraw.Draw(picture)
    for row, (text, (_, i)) in enumerate(zip(texts, rows, strict=True)):
        x, y = width + pad, pad + row * line
        canvas.rectangle(
            (x, y, x + 1.1 * font.size, y + 1.1 * font.size), fill=_rgb(colors[i]), outline="black"
        )
        canvas.text((x + 1.6 * font.size, y + 0.55 * font.size), text, "black", font, anchor="lm")
    return picture


def _draw_label(
    canvas: ImageDraw.ImageDraw,
    text: str,
    box: Sequence[float],
    color: Color,
    size: tuple[int, int],
    taken: list[Rectangle],
) -> None:
    """A filled label at a corner of the box, above, inside or below it, where no other label is.

    Small objects have small letters, so that a label does not hide them and their neighbours.
    """
    side = max(box[2] - box[0], box[3] - box[1])
    font = _font(round(min(max(11.0, min(size) / 34), max(9.0, side / 6))))
    width, height = font.getlength(text) + 4, 1.3 * font.size
    lefts = [min(max(0.0, x), max(0.0, size[0] - width)) for x in (box[0], box[2] - width, box[2])]
    tops = [box[1] - height, box[1], box[3], box[3] - height]
    tops += [box[1] + step * height for step in range(1, 4)]
    tops = [top for top in tops if 0 <= top <= size[1] - height] or [0.0]
    places = [(left, top, left + width, top + height) for left in lefts for top in tops]
    free = (place for place in places if not any(_overlap(place, other) for other in taken))
    chosen = next(free, places[0])
    taken.append(chosen)
    canvas.rectangle(chosen, fill=color)
    dark = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2] < 140
    middle = (chosen[0] + 2, (chosen[1] + chosen[3]) / 2)
    canvas.text(middle, text, "white" if dark else "black", font, anchor="lm")


def _shades(labels: np.ndarray, order: Sequence[int], colors: np.ndarray) -> dict[int, Color]:
    """Colour by instance: the class's own, then lighter and darker in turn."""
    seen: Counter[int] = Counter()
    shades = {}
    for i in order:
        label = int(labels[i])
        towards, amount = ((0, 0.0), (255, 0.35), (0, 0.3), (255, 0.6))[seen[label] % 4]
        shades[i] = _rgb(np.round((1 - amount) * colors[label] + amount * towards))
        seen[label] += 1
    return shades


def _enlargement(image: np.ndarray, legible: int = LEGIBLE) -> int:
    """How many times larger a picture is drawn than its image."""
    return max(1, round(legible / min(image.shape[:2])))


def _enlarged(pixels: np.ndarray, factor: int, interpolation: int) -> np.ndarray:
    return cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=interpolation)


def _overlap(a: Rectangle, b: Rectangle) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _rgb(color: np.ndarray) -> Color:
    return int(color[0]), int(color[1]), int(color[2])


@lru_cache(maxsize=16)
def _font(size: float) -> ImageFont.FreeTypeFont:
    """matplotlib's own font, which is there on every machine."""
    return ImageFont.truetype(font_manager.findfont("DejaVu Sans"), size)

"""Predictions drawn on their images."""

from __future__ import annotations

import colorsys
from functools import lru_cache

import cv2
import numpy as np
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

from .predictor import Detections, Segmentation

ALPHA = 0.45  # of a mask's colour


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
    image: np.ndarray, found: Detections, colors: np.ndarray, score_threshold: float = 0.3
) -> Image.Image:
    """Masks, boxes, and class names with scores.

    Args:
        image: RGB uint8 [H, W, 3].
        found: Predictions for it.
        colors: uint8 [C, 3], see :func:`class_colors`.
        score_threshold: Below it nothing is drawn.
    """
    order = [i for i in np.argsort(found.scores) if found.scores[i] >= score_threshold]  # the surest on top
    pixels = image.astype(np.float32)
    for i in order if found.masks is not None else ():
        assert found.masks is not None
        mask, color = found.masks[i], colors[found.labels[i]].astype(np.float32)
        pixels[mask] = (1 - ALPHA) * pixels[mask] + ALPHA * color
        contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(pixels, contours, -1, [float(value) for value in color], _line_width(image.shape))
    picture = Image.fromarray(np.round(pixels).clip(0, 255).astype(np.uint8))
    canvas = ImageDraw.Draw(picture)
    for i in order:
        left, top, right, bottom = (float(value) for value in found.boxes[i])
        color = _rgb(colors[found.labels[i]])
        if right > left and bottom > top:
            canvas.rectangle((left, top, right, bottom), outline=color, width=_line_width(image.shape))
    taken: list[tuple[float, float, float, float]] = []
    for i in reversed(order):  # the surest has the first choice of a place
        text = f"{found.classes[found.labels[i]]} {found.scores[i]:.2f}"
        _draw_label(canvas, text, found.boxes[i], _rgb(colors[found.labels[i]]), picture.size, taken)
    return picture


def draw_segmentation(image: np.ndarray, found: Segmentation, colors: np.ndarray) -> Image.Image:
    """The label map over the image, and beside it the names, colours and shares of the classes that occur.

    Args:
        image: RGB uint8 [H, W, 3].
        found: Predictions for it.
        colors: uint8 [C, 3].
    """
    overlay = np.round(0.45 * image + 0.55 * colors[found.label_map].astype(np.float32)).astype(np.uint8)
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
    box: np.ndarray,
    color: tuple[int, int, int],
    size: tuple[int, int],
    taken: list[tuple[float, float, float, float]],
) -> None:
    """A filled label at the box's top left corner: above it, inside it or below it, where no other label is."""
    font = _font(max(11, min(size) / 34))
    width, height = font.getlength(text) + 6, 1.35 * font.size
    left = min(max(0.0, float(box[0])), max(0.0, size[0] - width))
    tops = [float(box[1]) - height, float(box[1]), float(box[3]), float(box[3]) - height]
    tops += [float(box[1]) + step * height for step in range(1, 6)]
    places = [(left, top, left + width, top + height) for top in tops if 0 <= top <= size[1] - height]
    free = [p for p in places if not any(_overlap(p, other) for other in taken)]
    chosen = (free or places or [(left, 0.0, left + width, height)])[0]
    taken.append(chosen)
    canvas.rectangle(chosen, fill=color)
    dark = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2] < 140
    canvas.text(
        (chosen[0] + 3, (chosen[1] + chosen[3]) / 2), text, "white" if dark else "black", font, anchor="lm"
    )


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _line_width(shape: tuple[int, ...]) -> int:
    return max(1, round(min(shape[:2]) / 300))


def _rgb(color: np.ndarray) -> tuple[int, int, int]:
    return int(color[0]), int(color[1]), int(color[2])


@lru_cache(maxsize=16)
def _font(size: float) -> ImageFont.FreeTypeFont:
    """matplotlib's own font, which is there on every machine."""
    return ImageFont.truetype(font_manager.findfont("DejaVu Sans"), size)

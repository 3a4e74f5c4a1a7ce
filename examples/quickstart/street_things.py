"""The five things of the street scenes: drawn in metres, put on the ground, far ones first."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw

from .street_scenes import (
    ANY_HUE,
    LOOKS,
    ROAD,
    SIDEWALK,
    Array,
    Canvas,
    Look,
    Range,
    develop,
    grain,
    hue_colour,
    paint_ground,
    paint_sides,
    paint_sky,
    paint_skyline,
)

THINGS = {"person": 11, "car": 13, "truck": 14, "bus": 15, "bicycle": 18}  # train ids of Cityscapes
SHARES = (0.28, 0.27, 0.15, 0.15, 0.15)
LONG_SIDE = (1.75, 4.2, 7.2, 9.5, 1.8)  # metres
WALKS = (0.7, 0.2, 0.2, 0.2, 0.5)  # chance of standing on the pavement
SIZES = (24, 96)  # pixels of the longer side
MIN_PIXELS = 20  # a thing with fewer visible pixels is not an instance


class Pen:
    """Draws one thing in metres, x to the right and y up from the ground, at twice its final size."""

    def __init__(self, width: float, height: float, scale: float) -> None:
        self.scale, self.height = 2 * scale, height
        size = (max(4, round(width * self.scale)), max(4, round(height * self.scale)))
        self.image, self.mask = Image.new("RGB", size), Image.new("L", size)
        self.colour, self.solid = ImageDraw.Draw(self.image), ImageDraw.Draw(self.mask)

    def at(self, *points: Range) -> list[Range]:
        return [(x * self.scale, (self.height - y) * self.scale) for x, y in points]

    def fill(self, colour: Array, *points: Range) -> None:
        corners = self.at(*points)
        self.colour.polygon(corners, ink_of(colour))
        self.solid.polygon(corners, 255)

    def box(self, colour: Array, x0: float, y0: float, x1: float, y1: float) -> None:
        self.fill(colour, (x0, y0), (x1, y0), (x1, y1), (x0, y1))

    def line(self, colour: Array, width: float, *points: Range) -> None:
        path, thick = self.at(*points), max(2, round(width * self.scale))
        self.colour.line(path, ink_of(colour), thick, "curve")
        self.solid.line(path, 255, thick, "curve")

    def disc(self, colour: Array, x: float, y: float, radius: float, tall: float = 1.0) -> None:
        corners = self.at((x - radius, y + radius * tall), (x + radius, y - radius * tall))
        self.colour.ellipse(corners, ink_of(colour))
        self.solid.ellipse(corners, 255)


def ink_of(colour: Array) -> tuple[int, ...]:
    return tuple(int(255 * min(1.0, max(0.0, float(channel)))) for channel in colour)


def paint_of(rng: Generator, look: Look) -> Array:
    return hue_colour(rng, look.vehicles, (0.3, 0.95), (0.3, 0.95))


def dim(rng: Generator) -> Array:
    return hue_colour(rng, ANY_HUE, (0.0, 0.3), (0.03, 0.25))


def draw_person(rng: Generator, look: Look, scale: float) -> Pen:
    pen = Pen(0.9, 1.75, scale)
    skin = hue_colour(rng, ((0.05, 0.09),), (0.3, 0.7), (0.25, 0.95))
    trousers, shirt = (hue_colour(rng, look.vehicles, (0.0, 0.9), (0.1, 0.95)) for _ in range(2))
    stride, swing = rng.uniform(-0.28, 0.28), rng.uniform(0.05, 0.32)
    for side in (-1, 1):
        pen.line(
            trousers, 0.17, (0.45, 0.9), (0.45 + side * stride * 0.5, 0.45), (0.45 + side * stride, 0.04)
        )
        pen.line(
            shirt * 0.8,
            0.12,
            (0.45 + side * 0.18, 1.4),
            (0.45 + side * swing, 1.1),
            (0.45 + side * 0.3, 0.85),
        )
    pen.fill(shirt, (0.24, 1.45), (0.66, 1.45), (0.62, 0.8), (0.28, 0.8))
    if rng.random() < 0.5:
        for level in np.arange(0.85, 1.4, rng.uniform(*look.rib) / 2).tolist():
            pen.box(1 - shirt, 0.28, level, 0.62, level + 0.07)
    pen.disc(skin, 0.45, 1.58, 0.12, 1.3)
    pen.fill(dim(rng), (0.33, 1.6), (0.36, 1.73), (0.54, 1.73), (0.57, 1.6), (0.45, 1.68))
    return pen


def wheels(pen: Pen, rng: Generator, radius: float, *places: float) -> None:
    rim = hue_colour(rng, ANY_HUE, (0.0, 0.2), (0.4, 0.9))
    for place in places:
        pen.disc(dim(rng), place, radius, radius)
        pen.disc(rim, place, radius, radius * 0.5)


def vehicle_end(pen: Pen, rng: Generator, body: Array, glass: Array, width: float, sill: float) -> None:
    """Front or rear: tyres, body, windscreen above ``sill``, lights, number plate."""
    height = pen.height
    lamp = hue_colour(rng, ((0.97, 1.02), (0.12, 0.16)), (0.2, 1.0), (0.8, 1.0))
    for x in (0.1, width - 0.4):
        pen.box(dim(rng), x, 0, x + 0.3, 0.5)
    pen.fill(
        body,
        (0.02, 0.25),
        (width, 0.25),
        (width, sill),
        (width * 0.88, height),
        (width * 0.12, height),
        (0.02, sill),
    )
    pen.fill(
        glass,
        (0.15, sill),
        (width - 0.15, sill),
        (width * 0.84, height * 0.95),
        (width * 0.16, height * 0.95),
    )
    for x in (0.1, width - 0.45):
        pen.box(lamp, x, 0.6, x + 0.35, 0.8)
    pen.box(lamp * 0 + 0.85, width / 2 - 0.3, 0.4, width / 2 + 0.3, 0.58)


def draw_car(rng: Generator, look: Look, scale: float) -> Pen:
    body, glass = paint_of(rng, look), dim(rng) + rng.uniform(0, 0.5)
    if rng.random() < 0.35:
        pen = Pen(1.8, 1.5, scale)
        vehicle_end(pen, rng, body, glass, 1.8, 0.9)
        return pen
    pen, rear = Pen(4.2, 1.5, scale), rng.uniform(3.1, 4.0)
    pen.fill(
        body,
        (0, 0.3),
        (0.05, 0.75),
        (1.0, 0.92),
        (1.6, 1.45),
        (rear - 0.5, 1.48),
        (rear, 0.95),
        (4.15, 0.88),
        (4.2, 0.3),
    )
    pen.fill(glass, (1.15, 0.93), (1.65, 1.36), (2.2, 1.38), (2.2, 0.93))
    pen.fill(glass, (2.35, 0.93), (2.35, 1.38), (rear - 0.6, 1.38), (rear - 0.2, 0.93))
    pen.line(body * 0.6, 0.05, (0.1, 0.55), (4.1, 0.55))
    pen.line(body * 0.5, 0.04, (2.28, 0.9), (2.28, 0.35))
    wheels(pen, rng, 0.33, 0.85, 3.35)
    return pen


def draw_bus(rng: Generator, look: Look, scale: float) -> Pen:
    body, trim, glass = paint_of(rng, look), paint_of(rng, look), dim(rng) + rng.uniform(0, 0.5)
    if rng.random() < 0.3:
        pen = Pen(2.6, 3.1, scale)
        vehicle_end(pen, rng, body, glass, 2.6, 1.4)
        pen.box(dim(rng), 0.4, 2.7, 2.2, 2.95)
        return pen
    pen = Pen(9.5, 3.1, scale)
    pen.box(body, 0, 0.35, 9.5, 3.1)
    pen.box(trim, 0, rng.uniform(0.5, 0.8), 9.5, rng.uniform(0.9, 1.2))
    pitch = rng.uniform(1.0, 1.5)
    for x in np.arange(0.3, 9.4 - pitch * 0.8, pitch).tolist():
        pen.box(glass, x, 1.45, x + pitch * 0.8, 2.6)
    pen.box(glass * 0.8, 1.8, 0.45, 2.8, 2.6)
    wheels(pen, rng, 0.48, 1.2, 7.2)
    return pen


def draw_truck(rng: Generator, look: Look, scale: float) -> Pen:
    cab, cargo, glass = paint_of(rng, look), paint_of(rng, look), dim(rng) + rng.uniform(0, 0.5)
    if rng.random() < 0.3:
        pen = Pen(2.5, 3.3, scale)
        vehicle_end(pen, rng, cab, cargo, 2.5, 0.9)
        for x in (0.42, 1.24, 2.0):
            pen.box(cargo * 0.5, x, 0.9, x + 0.06, 3.2)
        return pen
    pen, rib = Pen(7.2, 3.3, scale), rng.uniform(*look.rib)
    pen.box(dim(rng), 0.3, 0.5, 7.1, 0.8)
    pen.fill(cab, (0, 0.4), (0, 1.4), (0.4, 2.5), (1.7, 2.5), (1.7, 0.4))
    pen.fill(glass, (0.15, 1.5), (0.48, 2.35), (1.2, 2.35), (1.2, 1.5))
    pen.box(cargo, 1.9, 0.8, 7.2, 3.3)
    for x in np.arange(1.9, 7.1, rib).tolist():
        pen.box(cargo * 0.7, x, 0.8, x + rib * 0.35, 3.3)
    wheels(pen, rng, 0.48, 0.9, 5.0, 6.2)
    return pen


def draw_bicycle(rng: Generator, look: Look, scale: float) -> Pen:
    pen, frame, tyre = Pen(1.8, 1.1, scale), paint_of(rng, look), dim(rng)
    for x in (0.36, 1.44):
        pen.disc(tyre, x, 0.36, 0.36)
        pen.disc(hue_colour(rng, ANY_HUE, (0, 0.2), (0.4, 0.8)), x, 0.36, 0.28)
        for turn in np.arange(0, np.pi, np.pi / 4):
            reach = 0.28 * np.array([np.cos(turn), np.sin(turn)])
            pen.line(tyre, 0.02, (x - reach[0], 0.36 - reach[1]), (x + reach[0], 0.36 + reach[1]))
    pen.line(frame, 0.07, (0.36, 0.36), (0.65, 0.85), (1.25, 0.85), (0.85, 0.36), (0.36, 0.36))
    pen.line(frame, 0.07, (0.85, 0.36), (0.6, 0.95))
    pen.line(frame, 0.07, (1.44, 0.36), (1.22, 1.0), (1.05, 1.05))
    pen.line(tyre, 0.08, (0.45, 0.97), (0.75, 0.97))
    return pen


Draw = Callable[[Generator, Look, float], Pen]
DRAW: tuple[Draw, ...] = (draw_person, draw_car, draw_truck, draw_bus, draw_bicycle)


def place_things(canvas: Canvas) -> list[tuple[int, Array]]:
    """Paint 3 to 8 things with their feet on road or pavement, far ones first.

    Returns:
        (index into THINGS, mask before occlusion) from far to near.
    """
    rng, height = canvas.rng, canvas.shape[0]
    drafts: list[tuple[float, int, int]] = []
    for kind in rng.choice(len(SHARES), size=rng.integers(3, 9), p=SHARES):
        for _ in range(12):
            scale = float(np.exp(rng.uniform(*np.log(SIZES)))) / LONG_SIDE[kind]  # pixels per metre
            foot = min(canvas.vy + canvas.cam * scale, height + rng.uniform(-30, 6))
            scale = (foot - canvas.vy) / canvas.cam
            walks = rng.random() < WALKS[kind]
            free = np.flatnonzero(canvas.label[min(int(foot), height - 1)] == (SIDEWALK if walks else ROAD))
            centre, reach = int(rng.choice(free)) if len(free) else -1, LONG_SIDE[kind] * scale
            apart = (abs(centre - other) > 0.3 * max(reach, LONG_SIDE[k] * s) for s, k, other in drafts)
            if centre >= 0 and all(apart):
                drafts.append((scale, int(kind), centre))
                break
    painted = []
    for scale, kind, centre in sorted(drafts):
        pen = DRAW[kind](rng, canvas.look, scale)
        size = (pen.image.width // 2, pen.image.height // 2)
        corner = (centre - size[0] // 2, int(canvas.vy + canvas.cam * scale) - size[1])
        painted.append((kind, paste(canvas, pen, corner, canvas.focal / scale)))
    return painted


def paste(canvas: Canvas, pen: Pen, corner: tuple[int, int], depth: float) -> Array:
    """Put a shaded thing and the shadow under it on the canvas; its mask, bool (height, width)."""
    rng, (height, width) = canvas.rng, canvas.shape
    tall, wide = pen.image.height // 2, pen.image.width // 2
    images = [image.resize((wide, tall), Image.Resampling.BOX) for image in (pen.image, pen.mask)]
    if rng.random() < 0.5:
        images = [image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for image in images]
    colour, opaque = (np.asarray(image, np.float32) / 255 for image in images)
    slope = np.linspace(0, rng.uniform(-0.4, 0.4), tall, dtype=np.float32)[:, None]
    colour = colour * (1 + slope + 0.06 * grain(rng, (tall, wide)))[..., None]
    x, y = corner
    shadow = ((canvas.x - x - wide / 2) / (0.55 * wide)) ** 2 + (
        (canvas.y - y - tall) / (2 + 0.06 * tall)
    ) ** 2
    canvas.rgb[shadow < 1] *= rng.uniform(0.3, 0.8)
    rows, columns = slice(max(0, y), min(height, y + tall)), slice(max(0, x), min(width, x + wide))
    crop = (slice(rows.start - y, rows.stop - y), slice(columns.start - x, columns.stop - x))
    colour, opaque = colour[crop], opaque[crop]
    patch = canvas.rgb[rows, columns]
    patch += (colour - patch) * opaque[..., None]
    mask = np.zeros(canvas.shape, bool)
    mask[rows, columns] = opaque > 0.5
    canvas.depth[mask] = depth
    return mask


def render(
    rng: Generator, split: str, height: int, width: int
) -> tuple[Array, Array, list[tuple[int, Array]]]:
    """Draw one scene.

    Returns:
        Image uint8 (height, width, 3); train ids uint8 (height, width); things as (index into THINGS, visible
        mask bool (height, width)), those hidden but for a few pixels left out.
    """
    canvas = Canvas(rng, LOOKS[split], height, width)
    for painter in (paint_sky, paint_skyline, paint_ground, paint_sides):
        painter(canvas)
    free = np.ones(canvas.shape, bool)
    things = []
    for kind, mask in reversed(place_things(canvas)):
        visible = mask & free
        free &= ~mask
        canvas.label[visible] = tuple(THINGS.values())[kind]
        if visible.sum() >= MIN_PIXELS:
            things.append((kind, visible))
    return develop(canvas), canvas.label, things

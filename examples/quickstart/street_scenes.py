"""One street scene from a random generator: sky, skyline, ground, houses and trees, light and haze.

A class is known by its texture and shape (windows in rows, leaf clumps, tiles, asphalt grain, wheels), hardly
by colour or place: hues are free; light, haze, horizon, vanishing point and the order along the street vary.
Validation scenes use hues and spatial periods that no training scene has.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from PIL import Image

ROAD, SIDEWALK, BUILDING, VEGETATION, SKY = 0, 1, 2, 8, 10  # train ids of Cityscapes
Array = np.ndarray
Range = tuple[float, float]
ANY_HUE: tuple[Range, ...] = ((0.0, 1.0),)
SKYLINE = 90.0  # metres
PIECES = 24  # houses or trees on each side of a street


@dataclass(frozen=True)
class Look:
    """What differs between train and val: hue intervals and spatial periods (metres, leaves in pixels)."""

    facades: tuple[Range, ...]
    vehicles: tuple[Range, ...]
    foliage: tuple[Range, ...]
    window: Range
    brick: Range
    tile: Range
    rib: Range
    leaf: Range


LOOKS = {
    "train": Look(
        facades=((0.0, 0.06), (0.1, 0.16), (0.5, 0.6)),
        vehicles=((0.97, 1.04), (0.12, 0.17), (0.52, 0.62)),
        foliage=((0.05, 0.12), (0.2, 0.3)),
        window=(1.4, 2.1),
        brick=(0.3, 0.45),
        tile=(0.7, 1.1),
        rib=(0.3, 0.5),
        leaf=(2.0, 3.2),
    ),
    "val": Look(
        facades=((0.06, 0.1), (0.3, 0.45), (0.62, 0.72)),
        vehicles=((0.05, 0.1), (0.3, 0.45), (0.75, 0.9)),
        foliage=((0.13, 0.19), (0.31, 0.42)),
        window=(2.15, 2.6),
        brick=(0.47, 0.6),
        tile=(1.15, 1.5),
        rib=(0.52, 0.7),
        leaf=(3.3, 4.0),
    ),
}


def hue_colours(
    rng: Generator, count: int, hues: tuple[Range, ...], saturation: Range, value: Range
) -> Array:
    """Random colours, float32 (count, 3) in [0, 1], hues drawn from one of the intervals."""
    low, high = np.array(hues)[rng.integers(len(hues), size=count)].T
    hue = (low + (high - low) * rng.random(count))[:, None]
    chroma, bright = rng.uniform(*saturation, (count, 1)), rng.uniform(*value, (count, 1))
    ramp = (np.array([5.0, 3.0, 1.0]) + 6 * hue) % 6
    return (bright * (1 - chroma * np.clip(np.minimum(ramp, 4 - ramp), 0, 1))).astype(np.float32)


def hue_colour(rng: Generator, hues: tuple[Range, ...], saturation: Range, value: Range) -> Array:
    return hue_colours(rng, 1, hues, saturation, value)[0]


def uniform(rng: Generator, limits: Range, count: int) -> Array:
    return rng.uniform(*limits, count).astype(np.float32)


def noise(rng: Generator, shape: tuple[int, int], cell: float) -> Array:
    """Smooth noise of about unit variance with a period of ``cell`` pixels, float32 (height, width)."""
    small = rng.standard_normal([int(np.ceil(side / cell)) + 2 for side in shape], np.float32)
    box = (0.5, 0.5, 0.5 + shape[1] / cell, 0.5 + shape[0] / cell)
    return 1.4 * np.asarray(Image.fromarray(small).resize(shape[::-1], Image.Resampling.BICUBIC, box))


def grain(rng: Generator, shape: tuple[int, int]) -> Array:
    """White noise of unit variance, float32."""
    return np.frombuffer(rng.bytes(shape[0] * shape[1]), np.int8).reshape(shape) / np.float32(74)


def within(period: Array) -> Array:
    """Fractional part."""
    return period - np.floor(period)


class Canvas:
    """Image, train ids and depth of one scene, painted from far to near.

    The camera stands ``cam`` metres above flat ground; the street runs to the vanishing point (vx, vy). At
    depth z a metre is ``focal / z`` pixels long; ``road`` and ``walls`` are left and right edges in metres.
    """

    def __init__(self, rng: Generator, look: Look, height: int, width: int) -> None:
        self.rng, self.look, self.shape = rng, look, (height, width)
        self.y = np.arange(height, dtype=np.float32)[:, None]
        self.x = np.arange(width, dtype=np.float32)
        self.rgb = np.zeros((height, width, 3), np.float32)
        self.label = np.full(self.shape, SKY, np.uint8)
        self.depth = np.full(self.shape, 1e3, np.float32)
        self.vy = float(height * rng.uniform(0.25, 0.62))
        self.vx = float(width * (rng.uniform(-0.1, 1.1) if rng.random() < 0.7 else rng.choice([-0.7, 1.7])))
        self.cam, self.focal = float(rng.uniform(1.4, 2.8)), float(width * rng.uniform(0.7, 1.2))
        left = self.cam * -self.vx / (height - self.vy)
        span = self.cam * width / (height - self.vy)
        self.road = (left + span * rng.uniform(-0.4, 0.45), left + span * rng.uniform(0.55, 1.4))
        walk = span * rng.uniform(0.08, 0.5, 2) * (rng.random(2) < 0.85)
        self.walls = (min(self.road[0] - walk[0], -0.25 * span), max(self.road[1] + walk[1], 0.25 * span))
        clumps = noise(rng, self.shape, 4 * rng.uniform(*look.leaf))
        self.leaves = np.clip(
            0.75 + 0.3 * noise(rng, self.shape, rng.uniform(*look.leaf)) + 0.25 * clumps, 0.1, 1.6
        )

    def paint(self, mask: Array, colour: Array, label: int, depth: Array | float) -> None:
        """``colour`` (height, width, 3) and ``depth`` (broadcast) where ``mask`` (height, width)."""
        np.copyto(self.rgb, colour, where=mask[..., None])
        np.copyto(self.depth, depth, where=mask)
        self.label[mask] = label


def paint_sky(canvas: Canvas) -> None:
    """Two colours running into each other, soft clouds before them."""
    rng = canvas.rng
    top, low = hue_colours(rng, 2, ((0.0, 1.0), (0.5, 0.65)), (0.0, 0.5), (0.35, 1.0))
    fall = np.clip(canvas.y / canvas.vy, 0, 1)[..., None]
    cloud = noise(rng, canvas.shape, 60) + 0.5 * noise(rng, canvas.shape, 25) + rng.uniform(-1.5, 1)
    cover = np.clip(cloud * np.float32(0.6), 0, np.float32(rng.uniform(0, 0.8)))[..., None]
    white = hue_colour(rng, ANY_HUE, (0, 0.15), (0.5, 1))
    canvas.rgb[:] = (top * (1 - fall) + low * fall) * (1 - cover) + white * cover


def facade(canvas: Canvas, u: Array, v: Array, style: Array) -> Array:
    """Bricks and rows of windows: colours (height, width, 3) of a wall.

    Args:
        u: Metres along the wall, (width,).
        v: Metres up, (height, width).
        style: House number of each column, (width,); each house has its own colours and periods.
    """
    rng, look, count = canvas.rng, canvas.look, int(style.max()) + 1
    base = hue_colours(rng, count, look.facades, (0.05, 0.7), (0.25, 0.95))[style]
    glass = hue_colours(rng, count, ANY_HUE, (0.0, 0.4), (0.05, 0.9))[style]
    pitch_u, pitch_v = uniform(rng, look.window, count)[style], uniform(rng, look.window, count)[style]
    brick, tone = uniform(rng, look.brick, count)[style], uniform(rng, (-0.35, 0.35), count)[style]
    wide, tall = uniform(rng, (0.22, 0.42), count)[style], uniform(rng, (0.22, 0.42), count)[style]
    course = np.floor(v / brick)
    mortar = (v / brick - course < 0.2) | (within(u / brick / 2 + 0.5 * course) < 0.12)
    wall = 1 + tone * mortar + 0.05 * grain(rng, canvas.shape)
    cell_u, cell_v = np.floor(u / pitch_u), np.floor(v / pitch_v)
    off_u, off_v = np.abs(u / pitch_u - cell_u - 0.5), np.abs(v / pitch_v - cell_v - 0.5)
    hashed = uniform(rng, (0, 1), 1024)
    lit = hashed[((cell_u * 73 + style * 7).astype(np.int32) + cell_v.astype(np.int32) * 19) & 1023]
    frame = (off_u < wide + 0.06) & (off_v < tall + 0.06) & (lit > 0.08)
    pane = frame & (off_u < wide) & (off_v < tall)
    wall *= np.where(frame, np.float32(0.5), np.float32(1)) * ~pane
    return (
        base * wall[..., None]
        + glass * ((0.5 + 0.8 * lit) * pane)[..., None]
        + ((tone > 0) * frame * 0.2)[..., None]
    )


def paint_skyline(canvas: Canvas) -> None:
    """Far houses and woods along the horizon, seen through the gaps."""
    rng, (height, width) = canvas.rng, canvas.shape
    block = np.searchsorted(np.sort(rng.uniform(0, width, 9)), canvas.x)
    woods = (rng.random(10) < rng.random())[block]
    ragged = np.where(woods, 1 + 0.25 * noise(rng, (1, width), 5)[0], 1)
    mask = (canvas.y < canvas.vy + 1) & (
        canvas.y > canvas.vy - uniform(rng, (0.02, 0.3), 10)[block] * height * ragged
    )
    scale = np.float32(rng.uniform(0.2, 0.45))
    wall = facade(canvas, canvas.x * scale, np.broadcast_to(canvas.y * scale, canvas.shape), block)
    canvas.paint(mask & ~woods, wall, BUILDING, SKYLINE)
    base = hue_colour(rng, canvas.look.foliage, (0.2, 0.8), (0.2, 0.8))
    canvas.paint(mask & woods, base * canvas.leaves[..., None], VEGETATION, SKYLINE)


def paint_ground(canvas: Canvas) -> None:
    """Asphalt with grain, patches and markings between the kerbs; tiles beyond."""
    rng, shape = canvas.rng, canvas.shape
    drop = np.maximum(canvas.y - canvas.vy, 0.5)
    z, x = canvas.focal * canvas.cam / drop, canvas.cam * (canvas.x - canvas.vx) / drop
    ground = np.broadcast_to(canvas.y >= canvas.vy, shape)
    rough = 0.11 * grain(rng, shape) + 0.08 * noise(rng, shape, 20)
    asphalt = hue_colour(rng, ANY_HUE, (0.0, 0.25), (0.2, 0.75)) * (1 + rough)[..., None]
    lane = rng.uniform(2.2, 3.5)
    dash = (within(z / rng.uniform(3, 6)) < rng.uniform(0.4, 1.0)) | (rng.random() < 0.3)
    marking = (np.abs(within((x - canvas.road[0]) / lane) - 0.5) * lane < 0.08) & dash
    start = rng.uniform(3, 14)
    if rng.random() < 0.3:
        marking |= (z > start) & (z < start + 3) & (within(x / rng.uniform(0.9, 1.3)) < 0.5)
    asphalt[marking] = asphalt[marking] * 0.4 + rng.uniform(0.35, 0.6)
    on_road = ground & (x > canvas.road[0]) & (x < canvas.road[1])
    canvas.paint(on_road, asphalt, ROAD, z)
    size = rng.uniform(*canvas.look.tile)
    row, column = np.floor(z / size / rng.choice([1, 2])), np.floor(x / size)
    joint = (within(z / size) < 0.1) | (within(x / size) < 0.1)
    shade = uniform(rng, (0.82, 1.18), 1024)[
        (row.astype(np.int32) * 73 + column.astype(np.int32) * 19) & 1023
    ]
    tiles = hue_colour(rng, ANY_HUE, (0.0, 0.3), (0.3, 0.9)) * (shade - 0.4 * joint + 0.3 * rough)[..., None]
    canvas.paint(ground & ~on_road, tiles, SIDEWALK, z)


def paint_sides(canvas: Canvas) -> None:
    """On both sides a row of houses with gaps, and in front of it a row of trees and hedges."""
    rng, side = canvas.rng, (canvas.x > canvas.vx).astype(int)
    reach = np.maximum(np.abs(canvas.x - canvas.vx), 1)
    for is_house, nearer, share in (
        (True, 1.0, rng.uniform(0.1, 0.85, 2)),
        (False, rng.uniform(0.75, 0.95), rng.uniform(0.0, 0.8, 2)),
    ):
        wall = np.abs(canvas.walls).astype(np.float32)[side] * nearer
        z, up = canvas.focal * wall / reach, canvas.cam + (canvas.vy - canvas.y) * (wall / reach)
        length = uniform(rng, (5, 14) if is_house else (2.5, 6), PIECES)
        ends = 2 + np.cumsum(length)
        number = np.minimum(np.searchsorted(ends, z), PIECES - 1)
        piece = number + PIECES * side
        there = (up > 0) & (z < ends[-1]) & (rng.random(2 * PIECES) < share.repeat(PIECES))[piece]
        if is_house:
            there &= up < uniform(rng, (2.5, 9), 2 * PIECES)[piece]
            canvas.paint(there, facade(canvas, z, up, piece), BUILDING, z)
            continue
        across = (z - ends[number]) / length[number] + 0.5  # -0.5 .. 0.5 within a tree's stretch
        bottom = (uniform(rng, (0.8, 2.2), 2 * PIECES) * (rng.random(2 * PIECES) < 0.6))[piece]
        tall = uniform(rng, (1, 5), 2 * PIECES)[piece]
        bulge = ((up - bottom) / tall * 2 - 1) ** 2 + (across * 2) ** 4
        crown = there & (bulge + 0.35 * noise(rng, canvas.shape, 7) < 1)
        trunk = there & (np.abs(across) * length[number] < 0.18) & (up < bottom + tall / 2)
        base = hue_colours(rng, 2 * PIECES, canvas.look.foliage, (0.2, 0.9), (0.25, 0.95))[piece]
        tone = np.where(crown, canvas.leaves, 0.3 + 0.1 * grain(rng, canvas.shape))
        canvas.paint(crown | trunk, base * tone[..., None], VEGETATION, z)


def develop(canvas: Canvas) -> Array:
    """Haze, light, colour cast, contrast and grain: uint8 (height, width, 3)."""
    rng, shape = canvas.rng, canvas.shape
    clear = np.exp(-np.minimum(canvas.depth, 250) / np.float32(rng.choice([60, 150, 600])))
    light = np.clip(1 + rng.uniform(0, 0.25) * noise(rng, shape, 50), 0.4, 1.6)
    haze = hue_colour(rng, ANY_HUE, (0.0, 0.3), (0.4, 0.95))
    image = canvas.rgb * (clear * light)[..., None] + haze * ((1 - clear) * light)[..., None]
    mix = (np.eye(3) + rng.normal(0, 0.07, (3, 3))) * rng.uniform(0.8, 1.2, 3) * rng.uniform(0.65, 1.25)
    image = np.clip(image @ mix.astype(np.float32), 0, 1) ** np.float32(rng.uniform(0.7, 1.35))
    image += rng.uniform(0.005, 0.03) * grain(rng, (shape[0], shape[1] * 3)).reshape(*shape, 3)
    return (255 * np.clip(image, 0, 1)).astype(np.uint8)

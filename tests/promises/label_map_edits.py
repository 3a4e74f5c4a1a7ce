"""The clean segmentation set in two folders, and the edits that its mutators are made of."""

import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 96, 64
CLASSES = ("ground", "box", "disc")
IGNORED = 255
EXIF_ORIENTATION = 0x0112
Edit = Callable[[np.ndarray], np.ndarray]
Change = Callable[[Path, random.Random], None]


def clean_pairs(root: Path, split: str = "train", seed: int = 0) -> Path:
    """Writes 8 images and label maps into `root/images/SPLIT` and `root/labels/SPLIT`, and returns `root`.

    Every map has pixels of all three classes and a border of ignored ones. The mutators change the split train only;
    write another split with another seed where a val set is needed.
    """
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    for part in ("images", "labels"):
        (root / part / split).mkdir(parents=True, exist_ok=True)
    for index in range(8):
        labels = np.zeros((HEIGHT, WIDTH), np.uint8)
        top, left = rng.integers(4, 36, 2)
        labels[top : top + 20, left : left + 22] = 1
        row, column, radius = rng.integers(16, 48), rng.integers(70, 82), rng.integers(7, 11)
        labels[(rows - row) ** 2 + (columns - column) ** 2 <= radius**2] = 2
        colors = np.array([(40, 40, 40), (230, 60, 60), (60, 220, 90)], np.uint8)
        picture = colors[labels] + rng.integers(0, 20, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        labels[:2] = IGNORED
        Image.fromarray(picture).save(root / "images" / split / f"view{index:02d}.jpg", quality=90)
        Image.fromarray(labels).save(root / "labels" / split / f"view{index:02d}.png")
    return root


def map_paths(root: Path) -> list[Path]:
    """Returns the label maps of the training set."""
    return sorted((root / "labels" / "train").rglob("view*.png"))


def image_paths(root: Path) -> list[Path]:
    """Returns the images of the training set."""
    return sorted((root / "images" / "train").rglob("view*.jpg"))


def pick(rng: random.Random, paths: list[Path]) -> list[Path]:
    """Returns one of the files, several of them, or all."""
    return rng.sample(paths, rng.choice([1, rng.randint(1, len(paths)), len(paths)]))


def on_ids(edit: Edit, every: bool = True) -> Change:
    """Returns a change of the ids in all maps, or in some."""

    def change(root: Path, rng: random.Random) -> None:
        for path in map_paths(root) if every else pick(rng, map_paths(root)):
            Image.fromarray(edit(np.array(Image.open(path)))).save(path)

    return change


def on_maps(write: Callable[[Image.Image, Path], object]) -> Change:
    """Returns a change that stores some maps in another way."""

    def change(root: Path, rng: random.Random) -> None:
        for path in pick(rng, map_paths(root)):
            write(Image.open(path).copy(), path)

    return change


def on_pictures(write: Callable[[Image.Image, Path], object]) -> Change:
    """Returns a change that stores some images in another way."""

    def change(root: Path, rng: random.Random) -> None:
        for path in pick(rng, image_paths(root)):
            write(Image.open(path).copy(), path)

    return change


def on_bytes(data: Callable[[bytes], bytes], paths: Callable[[Path], list[Path]]) -> Change:
    """Returns a change of the bytes of some files."""

    def change(root: Path, rng: random.Random) -> None:
        for path in pick(rng, paths(root)):
            path.write_bytes(data(path.read_bytes()))

    return change


def renamed(image: str, label: str) -> Change:
    """Returns a change that renames all files; `{}` is the number of a view."""

    def change(root: Path, rng: random.Random) -> None:
        for part, paths, spelling in (
            ("images", image_paths(root), image),
            ("labels", map_paths(root), label),
        ):
            for path in paths:
                target = root / part / "train" / spelling.replace("{}", path.stem[4:6])
                target.parent.mkdir(parents=True, exist_ok=True)
                path.rename(target)

    return change


def added(*files: str) -> Change:
    """Returns a change that adds files; a name that ends in .png or .jpg gets a picture, the others get bytes."""

    def change(root: Path, rng: random.Random) -> None:
        for name in files:
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.name.startswith((".", "Thumbs")) or path.suffix not in (".png", ".jpg"):
                path.write_bytes(b"\x00\x05\x16\x07 not a picture")
            else:
                mode = "L" if name.startswith("labels") else "RGB"
                Image.new(mode, (WIDTH, HEIGHT)).save(path)

    return change


def removed(paths: Callable[[Path], list[Path]]) -> Change:
    """Returns a change that deletes one to three files."""

    def change(root: Path, rng: random.Random) -> None:
        for path in rng.sample(paths(root), rng.randint(1, 3)):
            path.unlink()

    return change


def emptied(part: str) -> Change:
    """Returns a change that deletes all images or all labels."""

    def change(root: Path, rng: random.Random) -> None:
        for path in (root / part / "train").iterdir():
            path.unlink()

    return change


def folder_renamed(root: Path, rng: random.Random) -> None:
    """Calls the folder of the label maps masks."""
    (root / "labels").rename(root / "masks")


def same_stem(root: Path, rng: random.Random) -> None:
    """Puts a second image of the same stem beside an image."""
    path = rng.choice(image_paths(root))
    Image.open(path).save(path.with_suffix(".png"))


def as_array(picture: Image.Image, path: Path) -> None:
    """Replaces a map by a NumPy file."""
    path.unlink()
    np.save(path.with_suffix(".npy"), np.array(picture))


def other_suffix(suffix: str) -> Callable[[Image.Image, Path], None]:
    """Returns a writer that replaces a file by one of another suffix."""

    def write(picture: Image.Image, path: Path) -> None:
        path.unlink()
        picture.save(path.with_suffix(suffix), format="JPEG" if suffix in (".JPG", ".jfif") else None)

    return write


def lossy_tiff(picture: Image.Image, path: Path) -> None:
    """Replaces a map by a TIFF file that holds a JPEG."""
    path.unlink()
    picture.convert("L").save(path.with_suffix(".tif"), compression="jpeg")


def twelve_bits(picture: Image.Image, path: Path) -> None:
    """Replaces an image by a gray one whose values end at 4095, in 16 bits."""
    path.unlink()
    Image.fromarray(np.array(picture.convert("L")).astype(np.uint16) * 16).save(path.with_suffix(".png"))


def palette(
    picture: Image.Image, path: Path, transparency: int | None = None, colors: list[int] | None = None
) -> None:
    """Stores a map with a palette of 256 colors; the indices are the ids."""
    indices = picture.copy()
    indices.putpalette(colors or [0, 0, 0, 200, 0, 0, 0, 200, 0, *range(247), *range(256), *range(256)])
    if transparency is None:
        indices.save(path)
    else:
        indices.save(path, transparency=transparency)


def own_palettes(root: Path, rng: random.Random) -> None:
    """Gives two maps palettes in which the colors of box and disc are exchanged; the ids stay."""
    red, green = (200, 0, 0), (0, 200, 0)
    for path, colors in zip(map_paths(root), ((red, green), (green, red)), strict=False):
        indices = Image.open(path)
        indices.putpalette([0, 0, 0, *colors[0], *colors[1], *[90] * 756, 255, 255, 255])
        indices.save(path)


def lying(picture: Image.Image, path: Path) -> None:
    """Stores an image turned by a quarter, with the EXIF tag that turns it upright again."""
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    picture.transpose(Image.Transpose.ROTATE_90).save(path, quality=95, exif=exif)


def upside_down(picture: Image.Image, path: Path) -> None:
    """Stores an image turned by half a circle, with the EXIF tag that turns it upright again."""
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 3
    picture.transpose(Image.Transpose.ROTATE_180).save(path, quality=95, exif=exif)


def lying_with_map(picture: Image.Image, path: Path) -> None:
    """Turns an image as `lying` does, and its map too, which has no such tag."""
    lying(picture, path)
    label = Path(str(path).replace("/images/", "/labels/")).with_suffix(".png")
    Image.open(label).transpose(Image.Transpose.ROTATE_90).save(label)


def few_bits(bits: int, palette: bool = False) -> Callable[[Image.Image, Path], None]:
    """Returns a writer of PNG files of 2 or 4 bits, as optimizers make them; ignored pixels become ground."""

    def write(picture: Image.Image, path: Path) -> None:
        ids = np.where(np.array(picture) == IGNORED, 0, np.array(picture)).astype(np.uint8)
        height, width = ids.shape
        pixels = np.unpackbits(ids[..., None], axis=-1)[..., -bits:].reshape(height, -1)
        rows = np.insert(np.packbits(pixels, axis=1), 0, 0, axis=1)

        def chunk(kind: bytes, data: bytes) -> bytes:
            return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

        header = struct.pack(">IIBBBBB", width, height, bits, 3 if palette else 0, 0, 0, 0)
        colors = chunk(b"PLTE", bytes(range(3 * 2**bits))) if palette else b""
        body = colors + chunk(b"IDAT", zlib.compress(rows.tobytes())) + chunk(b"IEND", b"")
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body)

    return write


def shown(picture: Image.Image, path: Path) -> None:
    """Stores the classes as colors."""
    colors = np.zeros((256, 3), np.uint8)
    colors[1], colors[2], colors[IGNORED] = (200, 0, 0), (0, 200, 0), (255, 255, 255)
    Image.fromarray(colors[np.array(picture)]).save(path)


def where(condition: Callable[[np.ndarray], np.ndarray], value: int) -> Edit:
    """Returns an edit that writes a value where the condition holds."""
    return lambda labels: np.where(condition(labels), value, labels).astype(np.uint8)


def view(stem: str) -> str:
    """Returns the clean stem of an image whose name holds the same two digits."""
    digits = "".join(character for character in stem if character.isdigit())
    return f"view{digits[-2:]}"

"""Mutators of segmentation sets in two folders, for a config with the classes ground, box and disc."""

import numpy as np
from PIL import Image

from tests.promises.label_map_edits import (
    CLASSES,
    HEIGHT,
    IGNORED,
    WIDTH,
    Change,
    added,
    as_array,
    clean_pairs,
    emptied,
    few_bits,
    folder_renamed,
    image_paths,
    lossy_tiff,
    lying,
    lying_with_map,
    map_paths,
    on_bytes,
    on_ids,
    on_maps,
    on_pictures,
    other_suffix,
    own_palettes,
    palette,
    removed,
    renamed,
    same_stem,
    shown,
    twelve_bits,
    upside_down,
    view,
    where,
)
from tests.promises.verdicts import Counts, LabelMapMutator, Verdict

__all__ = ["CLASSES", "MUTATORS", "clean_pairs"]


def _case(
    name: str, verdict: Verdict, change: Change, why: str, counts: Counts | None = None
) -> LabelMapMutator:
    return LabelMapMutator(name, verdict, why, change, clean_name=view, counts=counts)


def _used(classes: int = 3, left_out: int = 0) -> Counts:
    return {"images": 8, "classes": classes, "left_out": left_out}


STORED = (
    _case("map-palette", "same", on_maps(palette), "labelme and VOC store ids as indices of a palette."),
    _case(
        "maps-of-different-palettes",
        "warned",
        own_palettes,
        "Programs choose palettes by what occurs: one color is another id in the next map, and ids are what is used.",
    ),
    _case(
        "map-palette-black",
        "same",
        on_maps(lambda m, p: palette(m, p, colors=[0] * 768)),
        "A palette without colors says nothing, and ids are what is used.",
    ),
    _case(
        "map-palette-transparent",
        "same",
        on_maps(lambda m, p: palette(m, p, transparency=0)),
        "Some editors mark the ground as transparent; the indices stay.",
    ),
    _case(
        "map-16-bit",
        "same",
        on_maps(lambda m, p: Image.fromarray(np.array(m).astype(np.uint16)).save(p)),
        "Instance tools write 16 bits; ids up to 255 load as they are in mmseg.",
    ),
    _case(
        "map-16-bit-ignored-65535",
        "warned",
        on_maps(lambda m, p: Image.fromarray(np.where(np.array(m) == 255, 65535, np.uint16(m))).save(p)),
        "All 16 bits are what all 8 bits are in others: mmseg reads 255, and no other id becomes it.",
    ),
    _case(
        "map-16-bit-511",
        "refused",
        on_maps(lambda m, p: Image.fromarray(np.where(np.array(m) == 255, 511, np.uint16(m))).save(p)),
        "Cut to eight bits it would be ignored, though it is an id above 255.",
    ),
    _case(
        "map-16-bit-panoptic-ids",
        "refused",
        on_maps(lambda m, p: Image.fromarray(np.array(m).astype(np.uint16) * 1000 + 1).save(p)),
        "1000 x class + instance: cut to eight bits it would be another class.",
    ),
    _case("map-rgb", "refused", on_maps(shown), "Colors do not say which class they are."),
    _case(
        "map-rgb-of-equal-channels",
        "refused",
        on_maps(lambda m, p: m.convert("RGB").save(p)),
        "Three channels are colors to mmseg, which stops in training.",
    ),
    _case(
        "map-rgba",
        "refused",
        on_maps(lambda m, p: m.convert("RGBA").save(p)),
        "Four channels are colors to mmseg, which stops in training.",
    ),
    _case(
        "map-grey-with-alpha",
        "refused",
        on_maps(lambda m, p: m.convert("LA").save(p)),
        "Two channels; mmseg would stop in training.",
    ),
    _case(
        "map-float",
        "refused",
        on_maps(lambda m, p: m.convert("F").save(p, format="TIFF")),
        "Ids are whole numbers, and a network's probabilities are stored like this.",
    ),
    _case(
        "map-jpeg-inside",
        "refused",
        on_maps(lambda m, p: m.save(p, format="JPEG", quality=70)),
        "JPEG changes ids at every border, silently.",
    ),
    _case(
        "map-jpeg-inside-of-highest-quality",
        "refused",
        on_maps(lambda m, p: m.save(p, format="JPEG", quality=100, subsampling=0)),
        "A few ids change to neighboring classes, and every value is still one of a class.",
    ),
    _case(
        "map-jpeg-inside-of-one-id",
        "refused",
        on_maps(lambda m, p: Image.new("L", m.size, 1).save(p, format="JPEG")),
        "It may be right by luck; the next export of the same tool is not.",
    ),
    _case(
        "map-2-bit",
        "refused",
        on_maps(few_bits(2)),
        "Pillow spreads 0, 1, 2 to 0, 85, 170; the message says so, and not that ids are unknown.",
    ),
    _case("map-4-bit", "refused", on_maps(few_bits(4)), "Pillow spreads 0, 1, 2 to 0, 17, 34."),
    _case(
        "map-palette-4-bit",
        "different",
        on_maps(few_bits(4, palette=True)),
        "A palette's indices stay as they are with any number of bits; here no pixel is ignored.",
        _used(),
    ),
    _case(
        "map-jpeg",
        "refused",
        on_maps(other_suffix(".JPG")),
        "JPEG changes ids at every border; the message names the file that lies there.",
    ),
    _case(
        "map-tiff",
        "same",
        on_maps(other_suffix(".tif")),
        "Some programs export TIFF, which loses nothing.",
    ),
    _case(
        "map-tiff-lossy",
        "refused",
        on_maps(lossy_tiff),
        "A TIFF file can hold a JPEG, which changes ids at every border.",
    ),
    _case(
        "map-array",
        "refused",
        on_maps(as_array),
        "Maps are PNG files; the message names the .npy that lies there.",
    ),
    _case(
        "map-upper-case-suffix",
        "repaired",
        renamed("view{}.jpg", "view{}.PNG"),
        "Windows tools write .PNG; exactly one file is meant.",
    ),
    _case(
        "map-suffix-doubled",
        "refused",
        renamed("view{}.jpg", "view{}.jpg.png"),
        "Supervisely names maps like this; the message names the file that was looked for.",
    ),
    _case(
        "map-named-mask",
        "refused",
        renamed("view{}.jpg", "view{}_mask.png"),
        "Kaggle's way; the message names the file that was looked for.",
    ),
    _case("map-empty-file", "refused", on_bytes(lambda data: b"", map_paths), "A disk was full."),
    _case(
        "map-cut",
        "refused",
        on_bytes(lambda data: data[: len(data) // 2], map_paths),
        "A copy was interrupted.",
    ),
    _case(
        "map-is-text",
        "refused",
        on_bytes(lambda data: b"version https://git-lfs.github.com/spec/v1\n", map_paths),
        "Git LFS left a pointer.",
    ),
)

IDS = (
    _case(
        "ids-beyond-classes",
        "refused",
        on_ids(where(lambda m: m == 2, 7), every=False),
        "An id that no class has would stop or spoil training.",
    ),
    _case(
        "ids-from-one",
        "refused",
        on_ids(lambda m: np.where(m == IGNORED, m, m + 1).astype(np.uint8)),
        "ADE20K counts classes from 1: id 3 has no class, and the others would be off by one.",
    ),
    _case(
        "ids-254",
        "refused",
        on_ids(where(lambda m: m == IGNORED, 254)),
        "Only 255 is ignored; 254 has no class.",
    ),
    _case(
        "ids-spread-for-viewing",
        "refused",
        on_ids(lambda m: np.array([0, 127, 254], np.uint8)[np.minimum(m, 2)]),
        "Values of 0, 127 and 254 are made to be looked at; their classes are a guess.",
    ),
    _case(
        "ids-0-and-255",
        "refused",
        on_ids(where(lambda m: m > 0, IGNORED)),
        "A mask of black and white: everything but the ground would be ignored.",
    ),
    _case(
        "ids-ground-only",
        "refused",
        on_ids(lambda m: np.zeros_like(m)),
        "With one class there is nothing to learn, and accuracy is 100 %.",
    ),
    _case(
        "ids-ignored-only",
        "refused",
        on_ids(lambda m: np.full_like(m, IGNORED)),
        "No pixel would be trained.",
    ),
    _case(
        "ids-without-disc",
        "different",
        on_ids(where(lambda m: m == 2, 0)),
        "A rare class may be absent; it is said before training that disc has no pixel.",
        _used(classes=2),
    ),
    _case(
        "ids-0-1-255",
        "different",
        on_ids(where(lambda m: m == 2, IGNORED)),
        "255 is ignored, and it is said before training that disc has no pixel.",
        _used(classes=2),
    ),
    _case(
        "ids-without-ground",
        "different",
        on_ids(where(lambda m: m == 0, IGNORED)),
        "Sparse labels are valid; it is said before training that ground has no pixel.",
        _used(classes=2),
    ),
    _case(
        "map-one-bit",
        "different",
        on_ids(lambda m: m == 1),
        "One bit holds 0 and 1; it is said before training that disc has no pixel.",
        _used(classes=2),
    ),
)

PICTURES = (
    _case(
        "size-of-map-half",
        "refused",
        on_maps(lambda m, p: m.resize((WIDTH // 2, HEIGHT // 2), Image.Resampling.NEAREST).save(p)),
        "Labels of a smaller copy do not fit pixel by pixel.",
    ),
    _case(
        "size-of-map-turned",
        "refused",
        on_maps(lambda m, p: m.transpose(Image.Transpose.ROTATE_90).save(p)),
        "A map lying beside a standing image.",
    ),
    _case(
        "size-of-map-one-off",
        "refused",
        on_maps(lambda m, p: m.crop((0, 0, WIDTH - 1, HEIGHT)).save(p)),
        "One column is missing, and on which side is not known.",
    ),
    _case(
        "image-turned-by-exif",
        "warned",
        on_pictures(lying),
        "Phones store photographs lying down; labels drawn on what is seen fit what is loaded.",
    ),
    _case(
        "image-upside-down-by-exif",
        "warned",
        on_pictures(upside_down),
        "The size is the same both ways: whether the labels are of the upright image cannot be told.",
    ),
    _case(
        "image-and-map-lying",
        "refused",
        on_pictures(lying_with_map),
        "Labels drawn on the stored pixels do not fit the image that readers turn upright.",
    ),
    _case(
        "image-grey",
        "same",
        on_pictures(lambda i, p: i.convert("L").save(p)),
        "Grey images load as three equal channels.",
    ),
    _case(
        "image-12-bit-in-16",
        "warned",
        on_pictures(twelve_bits),
        "Microscopes write 12 bits into 16, of which the upper 8 are loaded: nearly black.",
    ),
    _case(
        "image-cmyk",
        "same",
        on_pictures(lambda i, p: i.convert("CMYK").save(p)),
        "Printers' JPEGs are converted.",
    ),
    _case("image-bmp", "same", on_pictures(other_suffix(".bmp")), "Images may have any suffix."),
    _case("image-webp", "same", on_pictures(other_suffix(".webp")), "Images may have any suffix."),
    _case(
        "image-jfif",
        "same",
        on_pictures(other_suffix(".jfif")),
        "Windows saves pictures of the web as .jfif, which is JPEG.",
    ),
    _case("image-upper-case-suffix", "same", on_pictures(other_suffix(".JPG")), "Cameras write .JPG."),
    _case(
        "image-cut",
        "refused",
        on_bytes(lambda data: data[: len(data) // 2], image_paths),
        "A copy was interrupted.",
    ),
    _case("image-empty-file", "refused", on_bytes(lambda data: b"", image_paths), "A disk was full."),
    _case(
        "image-is-a-web-page",
        "refused",
        on_bytes(lambda data: b"<!DOCTYPE html><p>404", image_paths),
        "A download answered with an error page.",
    ),
)

FILES = (
    _case("names-with-spaces", "same", renamed("my view {}.jpg", "my view {}.png"), "People write spaces."),
    _case("names-unicode", "same", renamed("Größe {}.jpg", "Größe {}.png"), "Not every language is English."),
    _case(
        "names-with-points",
        "same",
        renamed("v1.5 {}.jpg", "v1.5 {}.png"),
        "Only what follows the last point is a suffix.",
    ),
    _case(
        "names-in-sub-folders",
        "same",
        renamed("north/view{}.jpg", "north/view{}.png"),
        "Sub-folders are allowed.",
    ),
    _case(
        "maps-in-other-sub-folders",
        "refused",
        renamed("north/view{}.jpg", "view{}.png"),
        "A map of the same name elsewhere may be of another image.",
    ),
    _case(
        "map-missing",
        "refused",
        removed(map_paths),
        "An image without labels: whether to leave it out is the user's call.",
    ),
    _case(
        "image-missing",
        "different",
        added("labels/train/spare.png"),
        "A map without an image trains nothing; it is counted as left out.",
        _used(left_out=1),
    ),
    _case(
        "two-images-of-a-stem",
        "refused",
        same_stem,
        "view.jpg and view.png share one map; which of them was labelled is not known.",
    ),
    _case(
        "hidden-files",
        "same",
        added(
            "images/train/.DS_Store",
            "images/train/._view00.jpg",
            "labels/train/._view00.png",
            "images/train/Thumbs.db",
        ),
        "macOS and Windows leave these in every folder; nobody wants to read of them.",
    ),
    _case(
        "other-files",
        "different",
        added("images/train/notes.txt", "images/train/clip.mp4"),
        "Files that are not images are counted by suffix, so that nobody misses a photo.",
        _used(left_out=2),
    ),
    _case(
        "raw-photo-beside",
        "different",
        added("images/train/photo.cr2"),
        "A camera's raw file cannot be read; it is counted by suffix.",
        _used(left_out=1),
    ),
    _case("images-folder-empty", "refused", emptied("images"), "The photos were not copied."),
    _case("labels-folder-empty", "refused", emptied("labels"), "The labels were not copied."),
    _case(
        "labels-folder-named-masks",
        "refused",
        folder_renamed,
        "The config names labels; the message gives the path that was looked for.",
    ),
)

MUTATORS: tuple[LabelMapMutator, ...] = STORED + IDS + PICTURES + FILES

"""Mutators of COCO files: names of image files."""

import random
import unicodedata

from tests.promises.coco_edits import by_number, convert, drop, on_all, on_some, put, rename_files
from tests.promises.verdicts import CocoMutator, Content, Verdict


def _file_of_another(content: Content, rng: random.Random) -> None:
    first, second = rng.sample(content["images"], 2)
    second["file_name"] = first["file_name"]


_ACCENT = unicodedata.normalize("NFC", "Größe é {}.jpg")


def _name_mutator(name: str, verdict: Verdict, why: str, spelling: str, on_disk: str | None) -> CocoMutator:
    """Returns a mutator of all file names; `{}` in a spelling is the picture's number, None leaves the files alone."""

    def file_name(clean: str) -> str:
        return spelling.replace("{}", clean[5:9])

    files = None
    if on_disk is not None:
        files = rename_files(lambda clean: on_disk.replace("{}", clean[5:9]))
    change = on_all("images", convert("file_name", file_name))
    return CocoMutator(name, verdict, why, change, files=files, clean_name=by_number)


NAME_MUTATORS = (
    CocoMutator(
        "file-of-another-image",
        "refused",
        "Two entries name one picture; the objects of one of them lie on the wrong picture.",
        _file_of_another,
    ),
    CocoMutator(
        "file-name-null",
        "refused",
        "Nothing says which picture it is.",
        on_some("images", put("file_name", None)),
    ),
    CocoMutator(
        "file-name-missing",
        "refused",
        "Nothing says which picture it is.",
        on_some("images", drop("file_name")),
    ),
    CocoMutator(
        "file-name-empty",
        "refused",
        "An empty name is the folder itself.",
        on_some("images", put("file_name", "")),
    ),
    CocoMutator(
        "file-name-number",
        "refused",
        "A number has no suffix; which file it means is a guess.",
        on_some("images", put("file_name", 12)),
    ),
    CocoMutator(
        "file-name-list",
        "refused",
        "A list of names is a video's or a stereo pair's, which no reader here takes.",
        on_some("images", convert("file_name", lambda n: [n])),
    ),
    _name_mutator(
        "file-name-spaces",
        "same",
        "Cameras and people write spaces.",
        "my photo {} (copy).jpg",
        "my photo {} (copy).jpg",
    ),
    _name_mutator("file-name-unicode", "same", "Not every language is English.", _ACCENT, _ACCENT),
    _name_mutator(
        "file-name-sub-folder", "same", "Names may hold folders.", "north/day 1/{}.jpg", "north/day 1/{}.jpg"
    ),
    _name_mutator(
        "file-name-dot-slash",
        "same",
        "Another spelling of the same path, which the system reads.",
        "./scene{}.jpg",
        None,
    ),
    _name_mutator(
        "file-name-backslashes",
        "repaired",
        "A tool on Windows wrote the path; with slashes the file is there.",
        "north\\scene{}.jpg",
        "north/scene{}.jpg",
    ),
    _name_mutator(
        "file-name-other-case",
        "repaired",
        "Windows and macOS open SCENE.JPG as scene.jpg; exactly one file is meant.",
        "SCENE{}.JPG",
        None,
    ),
    _name_mutator(
        "file-name-decomposed",
        "repaired",
        "macOS writes accents as two characters; it is the same name, and exactly one file is meant.",
        unicodedata.normalize("NFD", _ACCENT),
        _ACCENT,
    ),
    _name_mutator(
        "file-name-of-another-machine",
        "refused",
        "The absolute path is not on this machine; a file of the same name may be another one.",
        "/home/ann/photos/scene{}.jpg",
        None,
    ),
    _name_mutator(
        "file-name-with-the-folder",
        "refused",
        "The folder is named twice; the message shows the path that was looked for.",
        "train2017/scene{}.jpg",
        None,
    ),
    _name_mutator(
        "file-name-address",
        "refused",
        "A web address is not a file of the set; nothing is downloaded.",
        "https://photos.example/scene{}.jpg",
        None,
    ),
    _name_mutator(
        "file-name-of-300-letters", "refused", "No system has such a file.", "a" * 300 + "{}.jpg", None
    ),
    _name_mutator("file-name-without-suffix", "refused", "Which file is meant is a guess.", "scene{}", None),
)

"""Images and labels in the layouts that people have: recognised, checked and split, and never copied or changed.

docs/data_layouts.md describes every layout, the line that is printed for it, and the errors. Importing this package
imports neither torch nor MMEngine.
"""

from .building import dataset, evaluator, write_lists
from .choosing import recognise
from .editing import with_classes
from .file_faults import FileFault, check
from .found import CITYSCAPES, Found, Part, line
from .leaving_out import left_out, whole_photos, without_broken
from .splitting import split

__all__ = [
    "CITYSCAPES",
    "FileFault",
    "Found",
    "Part",
    "check",
    "dataset",
    "evaluator",
    "left_out",
    "line",
    "recognise",
    "split",
    "whole_photos",
    "with_classes",
    "without_broken",
    "write_lists",
]

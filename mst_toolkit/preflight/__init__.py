"""What can be known before the first hour of a run: ``mst doctor CONFIG`` and ``tools/train.py CONFIG --dry-run``.

One program, in every process of the run: it builds everything, reads a sample of the data, makes a few steps, writes a
checkpoint and reads it back, and says what was found and how long the run takes.
"""

from .program import dry_run

__all__ = ["dry_run"]

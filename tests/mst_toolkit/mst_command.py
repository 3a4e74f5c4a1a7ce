"""The ``mst`` command as its installed script runs it."""

from mst_toolkit.cli import console

console()

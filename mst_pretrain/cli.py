"""The ``mst`` command lies in :mod:`mst_toolkit`; these names stay importable from here."""

from mst_toolkit.cli import console, main, tools
from mst_toolkit.resources import find_config, resources

__all__ = ["console", "find_config", "main", "resources", "tools"]

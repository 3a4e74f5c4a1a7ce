"""The ``mst`` command lies in :mod:`mst_toolkit.cli`; these names stay importable from here."""

from mst_toolkit.cli import console, find_config, main, resources, tools

__all__ = ["console", "find_config", "main", "resources", "tools"]

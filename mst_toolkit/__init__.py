"""The ``mst`` command. Importing this package imports nothing else: ``mst --help`` must not wait for torch."""

__version__ = "0.1.0"

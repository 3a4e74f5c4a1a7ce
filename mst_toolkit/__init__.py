"""The front door: ``import mst_toolkit as mst; mst.pretrain("photos")``, and the ``mst`` command.

Importing it imports neither PyTorch nor anything else that takes time: ``mst --help`` must not wait for them.
"""

from .api import compare, doctor, evaluate, export, finetune, predict, pretrain, probe, report

__version__ = "0.1.0"

__all__ = ["compare", "doctor", "evaluate", "export", "finetune", "predict", "pretrain", "probe", "report"]

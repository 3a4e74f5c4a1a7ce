"""MST pretraining, and the checkpoints of this and other projects.

Importing this package alone takes no time: reading, converting and inspecting checkpoints needs torch, timm and
safetensors, and not MMEngine. :mod:`mst_pretrain.register` registers everything with MMEngine. Where MMEngine has been
imported before, as it has when a config names this package in ``custom_imports``, that happens here, and in every other
order of imports when one of our tools reads such a config (``mst_pretrain.runtime.config.import_custom_modules``).
"""

import sys

if "mmengine" in sys.modules:
    from . import register  # noqa: F401

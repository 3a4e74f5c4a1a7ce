"""Checkpoint files as people have them, made of the state dicts of two networks of timm's vit_tiny_patch16_224.

A prefix is what stands before timm's names: the names of the containers that lead to the weights, the outermost of
`state_dict` and `model` left out, joined by points, and then the prefix of the keys.
"""

from tests.promises.checkpoint_others import OTHER_FILES
from tests.promises.checkpoint_sick import SICK_WEIGHTS
from tests.promises.checkpoint_weights import SEVERAL_NETWORKS, WHOLE_WEIGHTS
from tests.promises.verdicts import CheckpointMutator

__all__ = ["MUTATORS"]

MUTATORS: tuple[CheckpointMutator, ...] = (*WHOLE_WEIGHTS, *SEVERAL_NETWORKS, *SICK_WEIGHTS, *OTHER_FILES)

"""What a comparison keeps apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from mst_pretrain.runtime.errors import UserError
from mst_toolkit.comparing import keep_settings


def test_trainings_with_other_settings_are_not_mixed(tmp_path: Path) -> None:
    """A table would hold 300-step and 600-step trainings side by side when a comparison is called again."""
    settings = {"data": "d", "steps": 300, "cfg_options": ("a=1",), "gpus": 1, "workers": None}
    keep_settings(tmp_path, settings)
    keep_settings(tmp_path, {**settings, "gpus": 2, "cfg_options": ["a=1"]})
    with pytest.raises(UserError, match="steps was 300, now 600"):
        keep_settings(tmp_path, {**settings, "steps": 600})

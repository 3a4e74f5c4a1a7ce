"""What libraries print when they are imported."""

from __future__ import annotations

import pytest

from mst_pretrain.runtime.imports import quiet_imports


def test_only_the_known_noise_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    """What a user's own module prints would be lost, or the first lines be about a package that nobody needs."""
    with pytest.raises(ImportError), quiet_imports():
        print("Could not import OneDL. Skipping OneDL datasets.")
        print("my module is here")
        raise ImportError
    assert capsys.readouterr().out == "my module is here\n"
    with quiet_imports():
        print("Could not import OneDL")
    assert capsys.readouterr().out == ""

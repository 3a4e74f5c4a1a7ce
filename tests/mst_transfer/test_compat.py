"""Which distributions own mmcv, mmdet, mmseg and mmengine."""

from __future__ import annotations

import sys
import time
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
from mmengine.config import Config

from mst_pretrain.runtime.config import import_custom_modules
from mst_pretrain.runtime.errors import UserError
from mst_transfer import compat
from mst_transfer.compat import InstallationError

INSTALLED = ("onedl-mmengine", "onedl-mmcv", "onedl-mmdetection", "onedl-mmsegmentation")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is the whole sys.path, so that only fake distributions are installed."""
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    monkeypatch.setattr(
        compat, "find_spec", lambda name: ModuleSpec(name, None, origin=f"{name}/__init__.py")
    )
    return tmp_path


def install(site: Path, *distributions: str) -> None:
    """Write what pip leaves: the folder's name has underscores, the name inside may have hyphens."""
    for distribution in distributions:
        folder = site / f"{distribution.replace('-', '_')}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")


@pytest.mark.parametrize(
    ("kept", "added"),
    [
        ("onedl-mmcv", "mmcv"),
        ("onedl-mmcv", "mmcv-lite"),
        ("onedl-mmcv", "mmcv-full"),
        ("onedl-mmdetection", "mmdet"),
        ("onedl-mmsegmentation", "mmsegmentation"),
        ("onedl-mmengine", "mmengine"),
        ("onedl-mmengine", "mmengine-lite"),
    ],
)
def test_two_distributions_of_one_package(site: Path, kept: str, added: str) -> None:
    """Two distributions would overwrite each other's files and fail somewhere inside mmdet."""
    install(site, *INSTALLED, added)
    with pytest.raises(InstallationError) as caught:
        compat.check_distributions()
    message = str(caught.value)
    assert f"{kept} and {added} are both installed" in message
    assert f"pip uninstall -y {kept} {added} && pip install {kept}" in message


def test_two_originals(site: Path) -> None:
    """mmcv beside mmcv-lite, without onedl's, would pass unseen."""
    install(site, "onedl-mmengine", "onedl-mmdetection", "onedl-mmsegmentation", "mmcv", "mmcv-lite")
    with pytest.raises(InstallationError, match=r"pip uninstall -y mmcv mmcv-lite && pip install mmcv$"):
        compat.check_distributions()


@pytest.mark.parametrize(
    "distributions",
    [INSTALLED, ("mmengine", "mmcv-lite", "mmdet", "mmsegmentation")],
    ids=["onedl", "original"],
)
def test_one_distribution_each(site: Path, distributions: tuple[str, ...]) -> None:
    """A sound installation, onedl's or the original, would be refused."""
    install(site, *distributions)
    compat.check_distributions()


def test_not_installed(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Transfer without its extra would end in a ModuleNotFoundError that names no remedy."""
    install(site, "onedl-mmengine")
    monkeypatch.setattr(
        compat, "find_spec", lambda name: ModuleSpec(name, None, origin="x") if name == "mmengine" else None
    )
    with pytest.raises(
        InstallationError, match=r"mmcv is not installed.*pip install 'mst-toolkit\[transfer\]'"
    ):
        compat.check_distributions()


@pytest.mark.parametrize("spec", [None, ModuleSpec("mmcv", None)], ids=["gone", "leftover folder"])
def test_files_taken_by_an_uninstall(
    site: Path, monkeypatch: pytest.MonkeyPatch, spec: ModuleSpec | None
) -> None:
    """After `pip uninstall mmcv-lite` onedl-mmcv looks installed and has no files."""
    install(site, *INSTALLED)
    monkeypatch.setattr(
        compat, "find_spec", lambda name: spec if name == "mmcv" else ModuleSpec(name, None, origin="x")
    )
    with pytest.raises(InstallationError, match=r"pip install --force-reinstall --no-deps onedl-mmcv$"):
        compat.check_distributions()


def test_source_folder_without_metadata(site: Path) -> None:
    """A package on PYTHONPATH, installed by no one, would be called missing."""
    compat.check_distributions()


def test_real_environment_and_fast() -> None:
    """This environment would be refused, or every start of a tool would wait for the check."""
    start = time.process_time()
    compat.check_distributions()
    assert time.process_time() - start < 1.0


def test_importers_get_an_import_error_and_tools_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``try: import mst_transfer except ImportError`` would not catch it, or a tool print it twice over."""
    assert issubclass(InstallationError, ImportError)
    (tmp_path / "a_broken_package.py").write_text(
        "from mst_transfer.compat import InstallationError\nraise InstallationError('two. pip uninstall one')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError, match=r"^two\. pip uninstall one$"):
        import_custom_modules(Config({"custom_imports": {"imports": ["a_broken_package"]}}))


def test_versions_that_mmseg_refuses_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the newest mmcv-lite, mmseg 1.2.2 ends with an assertion and a traceback of seven files."""
    (tmp_path / "mmseg.py").write_text("assert False, 'MMCV==2.2.0 is used but incompatible.'")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "mmseg"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(
        compat.InstallationError, match=r"mmcv.*MMCV==2\.2\.0.*pip install .*mmcv-lite==2\.1\.0"
    ):
        compat.import_openmmlab()

"""Puts configs, tools and examples into the wheel's ``mst_toolkit``; everything else is in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
ONLY_IN_A_CLONE = ("setup_env.sh", "run_tests.sh", "__pycache__")


class BuildWithResources(build_py):
    """An editable install reads them from the clone instead."""

    def run(self) -> None:
        """Copy beside the packages."""
        super().run()
        if self.editable_mode:
            return
        for folder in ("configs", "tools", "examples"):
            target = Path(self.build_lib, "mst_toolkit", folder)
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(ROOT / folder, target, ignore=shutil.ignore_patterns(*ONLY_IN_A_CLONE))


setup(cmdclass={"build_py": BuildWithResources})

"""What the set-up installs: the demonstration needs neither mmdet nor mmseg, and nothing is installed twice."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
FAKE = """#!/bin/sh
echo "$@" >> "{log}"
"""


def test_extras_of_the_quickstart_and_what_is_there_stays(tmp_path: Path) -> None:
    """The first command would download mmdet and mmseg for nothing, or --full run without them."""
    log, python = tmp_path / "log", tmp_path / "env/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(FAKE.format(log=log))
    python.chmod(0o755)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MST_")}
    environment |= {"MST_NO_VENV": "1", "MST_PYTHON": str(python), "VIRTUAL_ENV": str(tmp_path / "env")}

    def installed(*words: str, **more: str) -> list[str]:
        """The extras that a command asks pip for."""
        log.unlink(missing_ok=True)
        command = ["bash", *words]
        subprocess.run(command, env=environment | more, check=True, capture_output=True, timeout=60)
        lines = log.read_text().splitlines()
        return [line.split("[")[-1].rstrip("]") for line in lines if " -e " in line]

    quickstart = str(ROOT / "tools/quickstart.sh")
    assert installed(quickstart) == ["pretrain"]
    assert installed(quickstart) == []
    assert installed(quickstart, "--full") == ["pretrain,transfer"]
    assert installed(quickstart) == []
    assert installed(str(ROOT / "tools/setup_env.sh")) == ["pretrain,transfer,dev"]
    assert installed(quickstart, "--full") == []

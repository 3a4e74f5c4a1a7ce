"""OpenCV, which mmdet and mmseg decode with, has the limit of pixels that Pillow has."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from PIL import Image


def test_opencv_refuses_a_decompression_bomb(tmp_path: Path) -> None:
    """A picture that a data set names without a check would become 1.2 GB in every worker."""
    Image.new("1", (20_000, 20_000)).save(tmp_path / "b.png")
    code = (
        "import sys, mst_transfer, cv2\n"
        "try:\n    print(cv2.imread(sys.argv[1]))\n"
        "except cv2.error as error:\n    print('pixels' in str(error) or 'CV_IO_MAX_IMAGE' in str(error))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "b.png")], capture_output=True, text=True
    )
    assert done.stdout.strip().splitlines()[-1:] in (["True"], ["None"]), done.stderr

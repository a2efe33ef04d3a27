"""The package as it is here, and as it was in another revision."""

from __future__ import annotations

import subprocess
import tarfile
from io import BytesIO
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def unpacked(revision: str, folder: Path) -> Path:
    """Return a folder that holds the package as it was in *revision*."""
    command = ["git", "-C", str(ROOT), "archive", revision, "aiosess"]
    archive = subprocess.run(command, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=BytesIO(archive)) as tar:
        tar.extractall(folder / "other", filter="data")
    return folder / "other"

"""RAPIDS as the image `notebook-rapids` holds it, on a real GPU. (That it resolves is tested everywhere.)"""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from images import build, lock

DRIVER = Path("/proc/driver/nvidia/version")


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.skipif(not DRIVER.exists(), reason="no NVIDIA GPU on this machine")
def test_what_the_lock_names_computes_on_a_gpu() -> None:
    """Installs the lock, some gigabytes, and runs the image's smoke test with it, as the image does: not as root."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        python = Path(folder, "venv/bin/python")
        tool = lock.uv()
        subprocess.run([tool, "venv", "--python=3.13", Path(folder, "venv")], check=True)
        locked = build.IMAGES / "notebook-rapids/requirements.txt"
        subprocess.run(
            [tool, "pip", "install", "--native-tls", f"--python={python}", "--require-hashes", "-r", locked],
            check=True,
        )
        done = subprocess.run(
            [python, build.IMAGES / "notebook-rapids/smoke.py"],
            cwd=folder,
            env={**os.environ, "HOME": folder, "PYTHONPATH": str(build.ROOT)},
            user=1000 if os.geteuid() == 0 else None,
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr
    assert "RAPIDS computes on GPU 0" in done.stdout

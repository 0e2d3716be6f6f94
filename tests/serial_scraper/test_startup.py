"""Start-up and idle cost: a gateway runs many components, and this one mostly waits."""

import subprocess
import sys
from pathlib import Path

from support import Standalone

HEAVY = ("numpy", "cv2", "boto3", "botocore", "awsiot", "awscrt", "websockets", "serial.tools", "asyncio", "hypothesis")


def python(code: str) -> str:
    command = [sys.executable, "-P", "-c", code]
    return subprocess.run(command, env={}, capture_output=True, text=True, check=True, timeout=20).stdout


def test_nothing_heavy_is_imported() -> None:
    loaded = python("import sys, serial_scraper.component; print(*sys.modules)").split()
    assert [name for name in loaded if name.startswith(HEAVY)] == []


def test_idle_memory_is_below_45_mb(tmp_path: Path) -> None:
    config = {"ports": {"mcu": {"device": str(tmp_path / "nothing")}}}
    with Standalone("serial_scraper", config, tmp_path / "work", fresh=True) as process:
        process.logged("nothing is plugged in")
        status = Path(f"/proc/{process.process.pid}/status").read_text()
        (kilobytes,) = [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")]
        assert kilobytes < 45_000

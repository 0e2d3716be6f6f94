"""The real LogShipper process on a folder of logs."""

import json
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from forked import popen


class Shipper:
    """One LogShipper in --standalone mode. `logs` is its logs folder; `start` may be called again after `kill`."""

    def __init__(self, folder: Path, config: dict[str, Any], **environment: str) -> None:
        self.logs = folder / "logs"
        self.work = folder / "work" / "edgeml.LogShipper"
        self.logs.mkdir(parents=True)
        self.work.mkdir(parents=True)
        self.config = folder / "config.json"
        self.output = folder / "output"
        self.configure(config)
        self.environment = {
            "PATH": os.environ["PATH"],
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_IOT_THING_NAME": "thing-1",
            **environment,
        }
        self.process: subprocess.Popen[bytes] | None = None

    def configure(self, config: dict[str, Any]) -> None:
        new = self.config.with_suffix(".new")
        new.write_text(
            json.dumps({"region": "eu-west-1", "periodicUploadIntervalSec": 0.05, "maxRetryDelaySec": 0.2, **config})
        )
        new.rename(self.config)

    def start(self) -> None:
        command = [sys.executable, "-P", "-m", "log_shipper", "--standalone", "--config", str(self.config)]
        command += ["--work", str(self.work)]
        self.process = popen(
            command,
            cwd=self.work,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._reader = threading.Thread(target=self._read, args=(self.process,))
        self._reader.start()

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        with process.stdout, self.output.open("ab", buffering=0) as output:
            for line in process.stdout:
                output.write(line)

    def send_signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """End it as the core does; its exit code."""
        return self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> int:
        if self.process is None:
            return 0
        process, self.process = self.process, None
        process.send_signal(number)
        try:
            return process.wait(timeout=10)
        finally:
            process.kill()
            self._reader.join()
            if process.stdin is not None:
                process.stdin.close()

    def send(self, topic: str, payload: dict[str, Any]) -> None:
        """A message on a local topic."""
        assert self.process is not None
        assert self.process.stdin is not None
        line = json.dumps({"channel": "local", "topic": topic, "payload": payload})
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def said(self) -> str:
        """All whole lines it has printed, over all starts."""
        return self.output.read_text().rpartition("\n")[0] if self.output.exists() else ""

    def published(self, channel: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.said().splitlines() if line.startswith('{"channel"')]
        return [line for line in lines if line["channel"] == channel]

    def memory_mb(self, field: str = "VmRSS") -> float:
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split(f"{field}:")[1].split()[0]) / 1024

    def cpu_s(self) -> float:
        assert self.process is not None
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def limit_file_size(self, size: int) -> None:
        """Writes beyond `size` bytes into a file fail from now on: a full disk, as far as a process can tell."""
        assert self.process is not None
        resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


@contextmanager
def shipper(folder: Path, config: dict[str, Any], **environment: str) -> Iterator[Shipper]:
    """A LogShipper that is started, and stopped after the block."""
    made = Shipper(folder, config, **environment)
    made.start()
    try:
        yield made
    finally:
        made.stop()

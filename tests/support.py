"""What tests share: waiting for a condition, and a component as a process outside Greengrass."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import sysconfig
import threading
import time
import tomllib
import venv
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from forked import popen

T = TypeVar("T")

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 2  # times as long as a test means to wait at most: on a machine that others use all takes longer


def eventually(probe: Callable[[], T], timeout: float = 30.0, what: str = "condition") -> T:
    """The first truthy value of `probe`, polled for PATIENCE times `timeout` seconds; AssertionError after that."""
    timeout *= PATIENCE
    began = time.monotonic()
    while True:
        asked = time.monotonic()
        value = probe()
        if value:
            return value
        now = time.monotonic()
        if now - began > timeout:
            raise AssertionError(f"{what}: still {value!r} after {timeout} s")
        time.sleep(min(0.01 + (now - began) / 20, 0.05) + (now - asked))  # what asks leaves time to what is asked about


def runs(pid: int) -> bool:
    """Whether there is a process of that id that has not ended, not even as one that nobody has waited for yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except (FileNotFoundError, ProcessLookupError):
        return False


def python_of(tree: Path) -> str:
    """The Python of a copy of this tree, which is installed in it as scripts/setup does, beside what is here."""
    python = tree / ".venv" / "bin" / "python"
    if not python.exists():
        venv.create(tree / ".venv", symlinks=True)
        project = tomllib.loads((tree / "pyproject.toml").read_text(encoding="utf-8"))
        roots = [str(tree / name) for name in project["tool"]["hatch"]["build"]["dev-mode-dirs"]]
        (packages,) = (tree / ".venv").glob("lib/python*/site-packages")
        (packages / "tree.pth").write_text("\n".join([*roots, sysconfig.get_path("purelib"), ""]), encoding="utf-8")
    return str(python)


class Standalone:
    """A component run with --standalone: its JSON lines in `lines`, its log in `log`; stopped when the block ends.

    `package` is one of ours, or a file that runs a component. `on_line` is given the whole of stdout instead, to read
    from a thread of its own. A `fresh` process shares no libraries with others: its memory is its own.
    """

    def __init__(
        self,
        package: str | Path,
        config: dict[str, Any],
        work: Path,
        *,
        env: dict[str, str] | None = None,
        root: Path | None = None,
        on_line: Callable[[Any], None] | None = None,
        fresh: bool = False,
    ) -> None:
        work.mkdir(parents=True, exist_ok=True)
        self.config_file = work / "config.json"
        self.config_file.write_text(json.dumps(config))
        self.lines: list[dict[str, Any]] = []
        self._log: list[str] = []
        program = [str(package)] if isinstance(package, Path) else ["-m", package]
        self._command = [sys.executable, "-P", *program, "--standalone", "--config", str(self.config_file)]
        self._command += ["--work", str(work)]
        self._command += ["--root", str(root)] if root else []
        self._read_stdout, self._popen = on_line or self._read_lines, subprocess.Popen if fresh else popen
        self._work, self._env = work, {**os.environ, **(env or {})}

    def __enter__(self) -> Self:
        self.process = self._popen(
            self._command,
            cwd=self._work,
            env=self._env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._readers = [
            threading.Thread(target=self._read_stdout, args=[self.process.stdout], daemon=True),
            threading.Thread(target=self._read_log, daemon=True),
        ]
        for reader in self._readers:
            reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def log(self) -> str:
        return "".join(self._log)

    def send(self, topic: str, payload: Any, channel: str = "local") -> None:
        """Deliver a message to the component's subscriptions."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"channel": channel, "topic": topic, "payload": payload}) + "\n")
        self.process.stdin.flush()

    def configure(self, config: dict[str, Any]) -> None:
        """Change the configuration file as an editor does: in one step, so that nobody reads half of it."""
        new = self.config_file.with_suffix(".new")
        new.write_text(json.dumps(config))
        new.rename(self.config_file)

    def message(self, topic: str, timeout: float = 30.0, *, count: int = 1) -> Any:
        """Payload of the `count`th message published on `topic`, awaited."""

        def found() -> list[Any]:
            here = [line for line in list(self.lines) if line["topic"] == topic]
            return here if len(here) >= count else []

        try:
            return eventually(found, timeout, f"message {count} on {topic}")[count - 1]["payload"]
        except AssertionError as error:
            raise AssertionError(f"{error}; log:\n{self.log}") from error

    def last(self, topic: str) -> Any:
        """Payload of the last message published on `topic` until now."""
        return [line["payload"] for line in list(self.lines) if line["topic"] == topic][-1]

    def logged(self, text: str, timeout: float = 30.0) -> None:
        """Wait until the log holds `text`."""
        try:
            eventually(lambda: text in self.log, timeout, "log")
        except AssertionError as error:
            raise AssertionError(f"no {text!r} in the log:\n{self.log}") from error

    def stop(self, timeout: float = 8.0) -> int:
        """SIGTERM, and the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.ended(timeout)

    def ended(self, timeout: float = 30.0) -> int:
        """Wait for the end; the exit code. A process that does not end is killed and an error."""
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"did not end within {timeout} s; log:\n{self.log}") from None
        finally:
            for reader in self._readers:
                reader.join(timeout=2)
            for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
                if stream:
                    with contextlib.suppress(BrokenPipeError):  # what a killed process did not read is lost with it
                        stream.close()
        return code

    def _read_lines(self, stdout: Any) -> None:
        for line in stdout:
            self.lines.append(json.loads(line))

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._log.append(line)

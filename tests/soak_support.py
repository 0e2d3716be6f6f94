"""What the soak needs: a core in a process of its own, what is heard, who is ended when, how much memory all take."""

import itertools
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from localdev.core.client import connect
from support import eventually

SCRIPTS = [sys.executable, "-m", "localdev.core"]
WORD_TIMEOUT_S = 60.0
LITE_ENDINGS = 2  # for each component: Nucleus Lite breaks what starts more than three times in an hour
ROUNDING_S = 0.2  # of the times in a health report
KILLS = 2  # for each component: three failures in a row make it BROKEN


class Core:
    """`scripts/core start` beside this process, so that its memory is its own, and the words of its CLI."""

    def __init__(self, root: Path, profile: str, mqtt_url: str, environment: dict[str, str], secrets: Path) -> None:
        self.root = root
        self._environment = {**os.environ, **environment}
        words = ["start", "--root", str(root), "--profile", profile, "--mqtt", mqtt_url, "--secrets", str(secrets)]
        self.output = (root.parent / "core.txt").open("w+")
        self.process = subprocess.Popen(
            [*SCRIPTS, *words], env=self._environment, stdout=self.output, stderr=self.output, stdin=subprocess.DEVNULL
        )

    def say(self, *words: str, timeout: float = WORD_TIMEOUT_S) -> str:
        """What one command prints. AssertionError if it fails."""
        done = subprocess.run(
            [*SCRIPTS, *words, "--root", str(self.root)],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def states(self) -> dict[str, str]:
        """State of each component, as `component list` says it."""
        found, name = {}, ""
        for line in self.say("component", "list").splitlines():
            key, _, value = line.strip().partition(": ")
            if key == "Component Name":
                name = value
            elif key == "State":
                found[name] = value
        return found

    def processes(self) -> dict[str, psutil.Process]:
        """The first process of each component's step that runs now, by component."""
        work, found = self.root / "work", {}
        for child in psutil.Process(self.process.pid).children():
            with suppress(psutil.Error, OSError):
                folder = Path(child.cwd())
                if folder.parent == work:
                    found[folder.name] = child
        return found

    def logs(self) -> dict[str, str]:
        return {path.stem: path.read_text(errors="replace") for path in (self.root / "logs").glob("*.log")}

    def close(self) -> int:
        """The exit code. A core that does not stop is killed and an AssertionError."""
        self.process.terminate()
        try:
            return self.process.wait(WORD_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError("the core did not stop") from None
        finally:
            self.output.close()


@contextmanager
def running_core(root: Path, profile: str, mqtt_url: str, environment: dict[str, str], secrets: Path) -> Iterator[Core]:
    core = Core(root, profile, mqtt_url, environment, secrets)
    try:
        eventually(lambda: (root / "cli_ipc_info").is_dir() and any((root / "cli_ipc_info").iterdir()), 20, "a core")
        yield core
    finally:
        code = core.close()
    assert code == 0


class Heard:
    """When something came, by flow, and the last health of each component; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._times: defaultdict[str, list[float]] = defaultdict(list)
        self._health: dict[str, dict[str, Any]] = {}

    def add(self, flow: str) -> None:
        with self._lock:
            self._times[flow].append(time.monotonic())

    def local(self, topic: str, payload: bytes) -> None:
        """A message of the core: its topic is the flow; health is kept."""
        if topic.startswith("edgeml/health/"):
            report = json.loads(payload)
            with self._lock:
                self._health[report["component"]] = report
        elif not topic.startswith("edgeml/echo/"):
            self.add(topic)

    def flows(self, flow: str, since: float) -> bool:
        """Whether at least two came after a monotonic time."""
        with self._lock:
            return len([at for at in self._times[flow][-2:] if at > since]) == 2

    def has_said(self, component: str, since: float) -> bool:
        """Whether a component that started after a Unix time has told its health."""
        report = self.health(component)
        return bool(report) and report["at"] - report["uptime_s"] > since - ROUNDING_S

    def is_well(self, component: str) -> bool:
        return not self.health(component)["problems"]

    def health(self, component: str) -> dict[str, Any]:
        with self._lock:
            return self._health.get(component, {})

    def summary(self) -> dict[str, str]:
        """Number and longest gap of each flow."""
        with self._lock:
            times = {flow: list(values) for flow, values in self._times.items()}
        gaps = {
            flow: max((later - earlier for earlier, later in itertools.pairwise(values)), default=0.0)
            for flow, values in times.items()
        }
        return {flow: f"{len(times[flow])}, longest gap {gaps[flow]:.1f} s" for flow in sorted(times)}


@contextmanager
def listening(core: Core, heard: Heard) -> Iterator[None]:
    """Local messages of the core go to `heard` meanwhile."""

    def take(event: Any) -> None:
        if event.binary_message:
            heard.local(event.binary_message.context.topic, event.binary_message.message or b"")
        else:
            message = json.dumps(event.json_message.message).encode()
            heard.local(event.json_message.context.topic, message)

    with connect(core.root) as client:
        for topic in ("edgeml/#", "local/#"):
            client.subscribe_to_topic(topic=topic, on_stream_event=take)
        yield


@dataclass(frozen=True)
class Ending:
    """One component is to be ended, `at` seconds after the start of the soak."""

    at: float
    component: str
    killed: bool


def plan(components: list[str], seconds: float, every_s: float, profile: str) -> list[Ending]:
    """In turn, a quarter of the rounds of each component by kill -9, but at most `KILLS`; Lite bears fewer in all."""
    rounds = LITE_ENDINGS if profile == "lite" else 1 << 30
    every_s = max(every_s, seconds / (LITE_ENDINGS * len(components) + 1)) if profile == "lite" else every_s
    kills: defaultdict[str, int] = defaultdict(int)
    endings: list[Ending] = []
    for number in range(min(int(seconds / every_s), rounds * len(components))):
        turn, index = divmod(number, len(components))
        component = components[index]
        killed = (turn + index) % (2 if profile == "lite" else 4) == 1 and kills[component] < KILLS
        kills[component] += killed
        endings.append(Ending((number + 1) * every_s, component, killed))
    return endings


def end(core: Core, ending: Ending) -> float:
    """Ends a component; Unix time from which the next start counts."""
    before = time.time()
    if not ending.killed:
        core.say("component", "restart", "--names", ending.component)
        return before
    eventually(lambda: ending.component in core.processes(), 20, f"a process of {ending.component}")
    core.processes()[ending.component].kill()
    return before


@dataclass(frozen=True)
class Sample:
    """Memory and descriptors of a component's processes, or of the core's. Seconds since the soak began; bytes."""

    at: float
    pid: int
    age: float
    rss: int
    descriptors: int


@dataclass
class Meter:
    """Looks at all processes every `period_s` seconds, in a thread, until `stop`."""

    core: Core
    began: float  # monotonic
    period_s: float = 1.0
    samples: dict[str, list[Sample]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="meter")
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(self.period_s):
            with suppress(psutil.Error):
                self._take("core", psutil.Process(self.core.process.pid), alone=True)
                for name, process in self.core.processes().items():
                    self._take(name, process, alone=False)

    def _take(self, name: str, process: psutil.Process, *, alone: bool) -> None:
        with suppress(psutil.Error):
            family = [process, *([] if alone else process.children(recursive=True))]
            self.samples[name].append(
                Sample(
                    time.monotonic() - self.began,
                    process.pid,
                    time.time() - process.create_time(),
                    sum(member.memory_info().rss for member in family),
                    sum(member.num_fds() for member in family),
                )
            )


PROCESSES = {
    "camera_capture": "edgeml.CameraCapture",
    "edge_impulse_linux": "edgeml.EdgeImpulseLinux",
    "edge_impulse_runner": "edgeml.EdgeImpulseRunner",
    "inferencer": "edgeml.Inferencer",
    "log_shipper": "edgeml.LogShipper",
    "model_updater": "edgeml.ModelUpdater",
    "monitor": "edgeml.Monitor",
    "sample_requester": "edgeml.SampleRequester",
    "serial_scraper": "edgeml.SerialScraper",
}
EVERY_S = 10.0  # one of them is ended so often
MEBIBYTE = 1 << 20
Take = Callable[[Sample], bool]


def growth(samples: list[Sample], first: Take, last: Take) -> tuple[float, float, float] | None:
    """Median bytes in the first window, growth of the medians in bytes and in descriptors; None without samples."""
    windows = [[sample for sample in samples if take(sample)] for take in (first, last)]
    if not all(windows):
        return None
    rss = [statistics.median(sample.rss for sample in window) for window in windows]
    descriptors = [statistics.median(sample.descriptors for sample in window) for window in windows]
    return rss[0], rss[1] - rss[0], descriptors[1] - descriptors[0]


def within_lives(samples: list[Sample], first: Take, last: Take) -> tuple[float, float, float] | None:
    """The same from the first to the last window of each process that has both: medians over the processes."""
    lives = defaultdict(list)
    for sample in samples:
        lives[sample.pid].append(sample)
    found = [grown for life in lives.values() if (grown := growth(life, first, last))]
    if not found:
        return None
    base, rss, descriptors = (statistics.median(values) for values in zip(*found, strict=True))
    return base, rss, descriptors

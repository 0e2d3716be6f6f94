"""What each component costs before it does anything: import, exec to first publish, idle memory and CPU, disk.

Each runs from its built artifact in its own environment, as its recipe runs it, with an empty configuration and a real
connection to a local core, which runs with a broker in a process of its own. The limit beside import and start is
`python3 -c pass`.
"""

import contextlib
import json
import os
import queue
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from benchmarks.harness import Row, interleave
from localdev.workspace import Workspace

Reports = queue.SimpleQueue[str]

ROUNDS = 5
SETTLE_S, IDLE_S = 10.0, 20.0
TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Bars:
    """Upper bounds: ms of CPU to import, ms from exec to the first publish, MB of memory, MB on disk, % of a core."""

    import_ms: float
    publish_ms: float
    memory_mb: float
    disk_mb: float
    cpu_percent: float = 2.0  # idle


BARS = {
    "camera_capture": Bars(400, 1500, 90, 360),
    "edge_impulse_linux": Bars(400, 1500, 110, 120),
    "edge_impulse_runner": Bars(400, 1500, 110, 260),
    "inferencer": Bars(600, 1500, 160, 330),
    "log_shipper": Bars(150, 1000, 45, 30),
    "model_updater": Bars(150, 1000, 45, 175),
    "monitor": Bars(400, 1500, 60, 300, cpu_percent=0.5),
    "sample_requester": Bars(150, 1000, 45, 20),
    "serial_scraper": Bars(150, 1000, 45, 20),
}

_CORE = """
import json, sys
from pathlib import Path
from localdev.cloud.broker import Broker
from localdev.core import LocalCore
everything = {"all": {"operations": ["*"], "resources": ["*"]}}
policy = {"aws.greengrass.ipc.pubsub": everything, "aws.greengrass.ipc.mqttproxy": everything}
with Broker() as broker, LocalCore(Path(sys.argv[1]), mqtt_url=broker.url) as core:
    core.subscribe("edgeml/health/+", lambda topic, payload: print(topic, flush=True))
    print(json.dumps({"socket": str(core.socket), **{name: core.add_principal(name, policy) for name in sys.argv[2:]}}))
    sys.stdout.flush()
    sys.stdin.read()
"""


@dataclass(frozen=True)
class Installed:
    """A component's artifact, unpacked, and its environment."""

    package: str
    name: str
    code: Path
    work: Path

    @property
    def python(self) -> list[str]:
        return [str(self.work / "venv" / "bin" / "python"), "-I"]


def run() -> list[Row]:
    with tempfile.TemporaryDirectory() as scratch:
        installed = _install(Path(scratch))
        with _core(Path(scratch) / "core", [component.name for component in installed]) as (core, environment):
            rows = [row for component in installed for row in _startup(component, core, environment[component.name])]
            return rows + _idle(installed, environment)


def _install(scratch: Path) -> list[Installed]:
    builds, found = Workspace(), []
    builds.lend_venvs(BARS, scratch)
    for package, build in zip(BARS, builds.build(BARS), strict=True):
        (archive,) = build.glob("artifacts/*/*/*.zip")
        code = scratch / "code" / package
        with zipfile.ZipFile(archive) as content:
            content.extractall(code)
        subprocess.run([sys.executable, "-m", "compileall", "-q", str(code)], check=True, timeout=TIMEOUT_S)
        name = archive.parent.parent.name
        found.append(Installed(package, name, code, scratch / "work" / name))
    return found


@contextmanager
def _core(root: Path, names: list[str]) -> Iterator[tuple[Reports, dict[str, dict[str, str]]]]:
    """The topics of the reports that a core hears, as they come, and the environment of each component."""
    command = [sys.executable, "-c", _CORE, str(root), *names]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            told = json.loads(process.stdout.readline())
            shared = {
                "PATH": os.environ["PATH"],
                "AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT": told["socket"],
                "AWS_IOT_THING_NAME": "bench",
                "AWS_REGION": "us-east-1",
                "AWS_DEFAULT_REGION": "us-east-1",
                "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
                "AWS_ACCESS_KEY_ID": "bench",
                "AWS_SECRET_ACCESS_KEY": "bench",
            }
            reports: Reports = queue.SimpleQueue()
            threading.Thread(target=_copy, args=(process.stdout, reports), daemon=True).start()
            yield reports, {name: {**shared, "SVCUID": told[name]} for name in names}
        finally:
            process.stdin.close()
            process.wait(TIMEOUT_S)


def _copy(source: IO[str], target: Reports) -> None:
    for line in source:
        target.put(line.strip())


def _startup(component: Installed, reports: Reports, environment: dict[str, str]) -> list[Row]:
    package, bars = component.package, BARS[component.package]
    imports = f"import sys; sys.path.insert(0, {str(component.code)!r}); import {package}.component, {package}.config"
    medians = interleave(
        {
            "import": lambda: _cpu_ms([*component.python, "-c", imports]),
            "pass": lambda: _cpu_ms([*component.python, "-c", "pass"]),
            "publish": lambda: _publish_ms(component, reports, environment),
            "pass, wall": lambda: _wall_ms([*component.python, "-c", "pass"]),
        },
        ROUNDS,
    )
    megabytes = _disk_mb(component.work / "venv")
    return [
        _row(package, "import, CPU", "ms", medians["import"], bars.import_ms, medians["pass"]),
        _row(package, "exec to first publish", "ms", medians["publish"], bars.publish_ms, medians["pass, wall"]),
        _row(package, "environment on disk", "MB", megabytes, bars.disk_mb),
    ]


def _row(package: str, metric: str, unit: str, value: float, bar: float, limit: float | None = None) -> Row:
    return Row(
        bench="startup",
        metric=f"{package}: {metric}",
        unit=unit,
        value=value,
        limit=limit,
        ratio=value / limit if limit else None,
        bar=f"<= {bar:g} {unit}",
        ok=value <= bar,
    )


def _cpu_ms(command: list[str]) -> float:
    """CPU of a process and its children, threads included, the kernel's part too."""
    before = _children_s()
    subprocess.run(command, check=True, timeout=TIMEOUT_S)
    return (_children_s() - before) * 1e3


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _wall_ms(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, timeout=TIMEOUT_S)
    return (time.perf_counter() - began) * 1e3


def _publish_ms(component: Installed, reports: Reports, environment: dict[str, str]) -> float:
    command = [*component.python, "-u", str(component.code)]
    topic = f"edgeml/health/{component.name.removeprefix('edgeml.')}"
    while not reports.empty():  # what others said while they were stopped
        reports.get()
    began = time.perf_counter()
    with _running(command, component, environment):
        try:
            while reports.get(timeout=TIMEOUT_S) != topic:
                pass
        except queue.Empty:
            raise RuntimeError((component.work / "log").read_text(errors="replace")) from None
        return (time.perf_counter() - began) * 1e3


@contextmanager
def _running(command: list[str], component: Installed, environment: dict[str, str]) -> Iterator[int]:
    """A component's process; its id. It is stopped when the block ends."""
    with (component.work / "log").open("ab") as log, subprocess.Popen(
        command, cwd=component.work, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
    ) as process:  # fmt: skip
        try:
            yield process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def _idle(installed: list[Installed], environment: dict[str, dict[str, str]]) -> list[Row]:
    """All at once, long enough that what keeps asking for a secret or a model has slowed down."""
    with contextlib.ExitStack() as stack:
        pids = [
            stack.enter_context(
                _running([*component.python, "-u", str(component.code)], component, environment[component.name])
            )
            for component in installed
        ]
        time.sleep(SETTLE_S)
        before = [_used_s(pid) for pid in pids]
        time.sleep(IDLE_S)
        percents = [(_used_s(pid) - used) / IDLE_S * 100 for pid, used in zip(pids, before, strict=True)]
        memories = [_memory_mb(pid) for pid in pids]
    rows = []
    for component, percent, memory in zip(installed, percents, memories, strict=True):
        bars = BARS[component.package]
        rows.append(_row(component.package, "idle memory", "MB", memory, bars.memory_mb))
        rows.append(_row(component.package, "idle CPU", "%", percent, bars.cpu_percent))
    return rows


def _used_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory_mb(pid: int) -> float:
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS:")]
    return int(line.split()[1]) / 1e3


def _disk_mb(folder: Path) -> float:
    """Blocks in use; a file with two names counts once."""
    seen: dict[int, int] = {}
    for top, _, files in os.walk(folder.resolve()):
        for name in files:
            status = (Path(top) / name).lstat()
            seen[status.st_ino] = status.st_blocks * 512
    return sum(seen.values()) / 1e6

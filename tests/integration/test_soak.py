"""All components at work on a core, one of them ended every ten seconds: nothing breaks, stops flowing, or grows.

`./scripts/test --soak tests/integration/test_soak.py -s` prints the figures. SOAK_SECONDS (600) makes it shorter for
a trial; what needs longer to be judged is then left out, which the figures show. Where the core stands in for Nucleus
Lite, each component is ended twice only: Lite itself breaks what starts more often within an hour.
"""

import csv
import itertools
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from websockets.exceptions import ConnectionClosed

from integration.test_model_updater import Registry
from localdev import workspace
from localdev.cloud import LocalCloud
from localdev.cloud.iot_jobs import IotJobs
from localdev.demo.observer import Observer
from localdev.demo.stages.logs import written
from localdev.simulators.eim import Options, write_launcher
from localdev.simulators.interaction import FEATURES, TARGET, interactions
from localdev.simulators.mcu import Mcu, detections
from localdev.simulators.studio import FakeStudio
from localdev.simulators.turbine import Publisher
from ota_support import colour_files
from soak_support import (
    KILLS,
    LITE_ENDINGS,
    MEBIBYTE,
    Core,
    Heard,
    Meter,
    Sample,
    end,
    growth,
    listening,
    plan,
    running_core,
    within_lives,
)
from support import eventually

SECONDS = float(os.environ.get("SOAK_SECONDS", "600"))
EVERY_S = 10.0
SETTLE_S = 60.0  # at the end, for what was ended last
FLOWS_WITHIN_S = 60.0  # the window of the turbine is long
SECRET = "EI_API_KEY"
BUCKET = "soak-snapshots"
TAG = f"k{os.getpid():x}"  # begins the names of the shared memory of this test's model

PROCESSES = {
    "camera_capture": "edgeml.CameraCapture",
    "edge_impulse_linux": "edgeml.EdgeImpulseLinux",
    "edge_impulse_runner": "edgeml.EdgeImpulseRunner",
    "inferencer": "edgeml.Inferencer",
    "log_shipper": "edgeml.LogShipper",
    "model_updater": "edgeml.ModelUpdater",
    "sample_requester": "edgeml.SampleRequester",
    "serial_scraper": "edgeml.SerialScraper",
}
BUNDLES = ["duration", "emotion", "face_detector", "image_classifier", "wind_turbine"]
LOCAL_FLOWS = [
    "edgeml/camera/front/frame",
    *(f"edgeml/inference/{pipeline}" for pipeline in ("colours", "faces", "turbine", "duration", "pictures")),
    "local/inference",
    "local/result",
    "edgeml/serial/board/record",
]
IOT_FLOWS = ["IoT: ModelInference", "IoT: SoakCamera", "IoT: SoakBoard"]

# Bounds of growth: of the medians of windows, in bytes over the first window's median, and in descriptors.
GROWTH, GROWTH_BYTES, GROWTH_DESCRIPTORS = 0.08, 4 * MEBIBYTE, 2
MATURE_S = 20.0  # of a process: younger ones still warm up


class Site:
    """Cameras, boards, models, pictures and clouds: all that the components meet."""

    def __init__(self, folder: Path, cloud: LocalCloud, profile: str, stack: ExitStack) -> None:
        self.folder, self.cloud, self.heard = folder, cloud, Heard()
        self.rings = folder / "rings"
        self.rings.mkdir()
        cloud.aws.client("s3").create_bucket(Bucket=BUCKET)
        stack.enter_context(IotJobs(cloud.aws, *cloud.mqtt_address))
        self.registry = Registry(cloud)
        self.studio = stack.enter_context(FakeStudio())
        self._keep_key(profile)
        self.model = write_launcher(folder / "door.eim", Options(kind="box", width=96, height=96, tag=TAG))
        self.board = stack.enter_context(Mcu(folder / "ttyMCU", detections(), interval_s=0.2))
        stack.enter_context(Publisher(*cloud.mqtt_address, rate=20))
        self.table = folder / "interactions.csv"
        with self.table.open("w", newline="") as file:
            csv.writer(file).writerows([[*FEATURES, TARGET], *itertools.islice(interactions(7), 200)])
        observer = Observer(cloud.mqtt_address)
        stack.callback(observer.close)
        observer.hear("ModelInference", lambda topic, payload: self.heard.add("IoT: ModelInference"))
        observer.hear("/edgeimpulse/device/+/inference/output", self._edge_impulse)
        self._version, self._job, self._offered_at, self._sampled_at = 0, "", 0.0, 0.0

    def _keep_key(self, profile: str) -> None:
        key = json.dumps({"ei_api_key": self.studio.api_key})
        self.secrets = self.folder / "secrets.json"
        self.secrets.write_text(json.dumps({SECRET: key} if profile == "java" else {}))
        if profile == "lite":
            self.cloud.aws.client("secretsmanager").create_secret(Name=SECRET, SecretString=key)

    def _edge_impulse(self, topic: str, payload: bytes) -> None:
        self.heard.add(f"IoT: {topic.split('/')[3].split('_')[0]}")

    def configuration(self, root: Path) -> dict[str, dict[str, Any]]:
        rings = {"ring_directory": str(self.rings)}
        camera = {"type": "test_pattern", "width": 1280, "height": 720, "fps": 10}
        snapshots = {"every_s": 5, "s3_bucket": BUCKET}
        parameters = {"iotcore_backoff": 1, "metrics_sleeptime_ms": 10000}
        runner = {**parameters, "device_name": "SoakCamera", "ei_local_model_file": str(self.model)}
        board = {"ports": {"board": {"device": str(self.folder / "ttyMCU")}}}
        system = {"systemLogsConfiguration": {"uploadToCloudWatch": True}}
        return {
            "camera_capture": {**rings, "cameras": {"front": {**camera, "snapshots": snapshots}}},
            "edge_impulse_linux": {**rings, "cameras": ["front"], "device_id": "soak"},
            "edge_impulse_runner": {"Parameters": runner, "input": {**rings, "camera": "front", "max_fps": 3}},
            "inferencer": {**rings, "pipelines": self._pipelines(root)},
            "log_shipper": {"logsUploaderConfiguration": system, "periodicUploadIntervalSec": 1},
            "model_updater": {"allow_http": True, "public_key": self.registry.signer.public, "min_free_bytes": 0},
            "sample_requester": {"interval_s": 2},
            "serial_scraper": {"Parameters": {**parameters, "device_name": "SoakBoard"}, **board},
        }

    def _pipelines(self, root: Path) -> dict[str, Any]:
        camera = {"type": "camera", "camera": "front", "max_fps": 2}
        host, port = self.cloud.mqtt_address
        pictures = str(root / "work" / "edgeml.SampleRequester" / "pictures")
        caller = {"type": "caller", "file": str(self.table), "target": TARGET, "rate_hz": 2}
        sources = {
            "colours": (camera, "Colour"),
            "faces": (camera, "FaceDetector"),
            "turbine": ({"type": "mqtt", "host": host, "port": port}, "WindTurbine"),
            "duration": (caller, "Duration"),
            "pictures": ({"type": "request", "allowed_dirs": [pictures]}, "ImageClassifier"),
        }
        pipelines: dict[str, Any] = {
            name: {"source": source, "backend": {"type": "onnx", "model": model}}
            for name, (source, model) in sources.items()
        }
        pipelines["turbine"] |= {"verdict_every_s": 1, "iot_core": {"enabled": True}}
        return pipelines

    def tick(self) -> None:
        """Ask for a new model and for a sample now and then, as people do."""
        now = time.monotonic()
        if now - self._offered_at > 30 and self.job_has_ended():
            self._version += 1
            self._job = self.registry.offer(f"1.0.{self._version}", colour_files(f"1.0.{self._version}"))
            self._offered_at = now
        if now - self._sampled_at > 5 and self.studio.connected:
            self._sampled_at = now
            with suppress(ConnectionError, ConnectionClosed):
                self.studio.sample("Camera (1280x720)", "door")

    def job_has_ended(self) -> bool:
        """Whether the job offered last is done. AssertionError if it failed."""
        execution = self.registry.execution(self._job) if self._job else {"status": "SUCCEEDED"}
        assert execution["status"] in ("not rolled out yet", "QUEUED", "IN_PROGRESS", "SUCCEEDED"), execution
        return bool(execution["status"] == "SUCCEEDED")

    @property
    def updates(self) -> int:
        return self._version

    def lines_in_cloudwatch(self) -> Counter[tuple[str, str]]:
        logs, lines = self.cloud.aws.client("logs"), Counter[tuple[str, str]]()
        for group in logs.describe_log_groups(logGroupNamePrefix="/aws/greengrass")["logGroups"]:
            name = group["logGroupName"].rpartition("/")[2]
            for page in logs.get_paginator("filter_log_events").paginate(logGroupName=group["logGroupName"]):
                for event in page["events"]:
                    lines.update((name, line) for line in event["message"].splitlines() if line)
        return lines


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as things:
        yield things


def deploy(core: Core, site: Site, built: workspace.Workspace, folder: Path, profile: str) -> None:
    gathered = built.gather([*PROCESSES, *BUNDLES], folder)
    built.lend_venvs(PROCESSES, core.root)
    merge = dict(gathered.versions) | ({"aws.greengrass.SecretManager": "2.0.0"} if profile == "java" else {})
    configuration = folder / "configuration.json"
    packages = site.configuration(core.root)
    configuration.write_text(json.dumps({PROCESSES[name]: {"MERGE": values} for name, values in packages.items()}))
    folders = ["--recipeDir", str(gathered.recipes), "--artifactDir", str(gathered.artifacts)]
    versions = ",".join(f"{name}={version}" for name, version in merge.items())
    words = [*folders, "--merge", versions, "--update-config", str(configuration), "--wait", "120"]
    core.say("deployment", "create", *words, timeout=150)


def must_flow(site: Site, since: float) -> None:
    """Every kind of result came after `since`."""
    for flow in [*LOCAL_FLOWS, *IOT_FLOWS]:
        eventually(partial(site.heard.flows, flow, since), FLOWS_WITHIN_S, flow)


def must_be_sampled(site: Site) -> None:
    uploads = len(site.studio.uploads)

    def sampled() -> bool:
        site.tick()
        return len(site.studio.uploads) > uploads

    eventually(sampled, FLOWS_WITHIN_S, "a sample in Studio")


def must_be_well(core: Core, site: Site, ended: dict[str, float]) -> None:
    """Nothing is broken, everything is alive and has said so since its last start, and has no problem."""
    expected = dict.fromkeys(PROCESSES.values(), "RUNNING")
    eventually(lambda: expected.items() <= core.states().items(), SETTLE_S, f"all running: {core.states()}")
    assert "BROKEN" not in core.states().values()
    for name in PROCESSES.values():
        said = partial(site.heard.has_said, name, ended.get(name, 0.0))
        eventually(said, SETTLE_S, f"health of {name} since its last start: {site.heard.health(name)}")
        try:
            eventually(partial(site.heard.is_well, name), SETTLE_S, f"{name} without a problem")
        except AssertionError as error:
            raise AssertionError(f"{error}: {site.heard.health(name).get('problems')}") from error


def must_have_arrived(core: Core, site: Site) -> None:
    """Each line of every log file is in CloudWatch: a process that is killed sends lines twice rather than never."""
    lines = written(core.root / "logs")
    missing: Counter[tuple[str, str]] = Counter()

    def arrived() -> bool:
        nonlocal missing
        missing = lines - site.lines_in_cloudwatch()
        return not missing

    with suppress(AssertionError):
        eventually(arrived, FLOWS_WITHIN_S, "lines in CloudWatch")
    assert not missing, f"{missing.total()} of {lines.total()} lines are not in CloudWatch: {list(missing)[:5]}"


def flatness(taken: dict[str, list[Sample]], seconds: float) -> list[str]:
    """What has grown beyond its bounds; prints all figures.

    The core: from the second sixth of the soak to its last. A component, whose processes are ended about every
    80 s: from one process to those that come later, at the same age, and within the lives of its processes.
    """

    def window(first: float, last: float, youngest: float = 0.0) -> Callable[[Sample], bool]:
        return lambda sample: first <= sample.at <= last and sample.age >= youngest

    def aged(first: float, last: float) -> Callable[[Sample], bool]:
        return lambda sample: first <= sample.age <= last

    def mature(first: float, last: float) -> Callable[[Sample], bool]:
        return lambda sample: first <= sample.at <= last and MATURE_S <= sample.age <= 3 * MATURE_S

    found = []
    for name, samples in sorted(taken.items()):
        if name == "core":
            windows = {"over the soak": growth(samples, window(seconds / 6, seconds / 3), window(seconds * 5 / 6, 1e9))}
        elif name in PROCESSES.values():
            windows = {
                "over the soak": growth(samples, mature(seconds / 6, seconds / 2), mature(seconds * 2 / 3, 1e9)),
                "within a life": within_lives(samples, aged(MATURE_S, 2 * MATURE_S), aged(3 * MATURE_S, 1e9)),
            }
        else:
            continue
        for what, grown in windows.items():
            if grown is None:
                print(f"  {name:28} {what}: too short to be judged")
                continue
            base, rss, descriptors = grown
            text = f"{name:28} {what}: {base / MEBIBYTE:6.1f} MiB {rss / MEBIBYTE:+.1f}, descriptors {descriptors:+.0f}"
            print(f"  {text}")
            if rss > max(GROWTH_BYTES, base * GROWTH) or descriptors > GROWTH_DESCRIPTORS:
                found.append(text)
    return found


@pytest.mark.parametrize("profile", ["java", "lite"])
@pytest.mark.parametrize("seconds", [20.0, 90.0, 600.0, 3600.0])
def test_who_is_ended_when(profile: str, seconds: float) -> None:
    """Nobody more often than the core bears, nobody twice at once, everybody in both ways where there is time."""
    names = list(PROCESSES.values())
    endings = plan(names, seconds, EVERY_S, profile)
    times = [ending.at for ending in endings]
    assert all(later - earlier >= EVERY_S for earlier, later in itertools.pairwise([0.0, *times]))
    assert times[-1] <= seconds
    killed = Counter(ending.component for ending in endings if ending.killed)
    assert max(killed.values(), default=0) <= KILLS
    if profile == "lite":
        assert max(Counter(ending.component for ending in endings).values()) <= LITE_ENDINGS
    if seconds >= 600:
        assert set(killed) == set(names) == {ending.component for ending in endings if not ending.killed}


def grown(rss: float = 0.0, descriptors: float = 0.0, age: bool = False) -> dict[str, list[Sample]]:
    """Samples of 600 s, of a process ended every 80 s: it grows by so much per second of the soak, or of its life."""
    samples = []
    for second in range(600):
        since = second % 80 if age else second
        size = 50 * MEBIBYTE + int(rss * since)
        samples.append(Sample(second, second // 80, second % 80, size, 20 + int(descriptors * since)))
    return {"edgeml.Inferencer": samples}


@pytest.mark.parametrize(
    ("samples", "bounded"),
    [
        pytest.param(grown(), True, id="steady"),
        pytest.param(grown(rss=20_000), False, id="from-life-to-life"),
        pytest.param(grown(rss=120_000, age=True), False, id="within-a-life"),
        pytest.param(grown(descriptors=0.02), False, id="descriptors"),
        pytest.param(grown(descriptors=0.1, age=True), False, id="descriptors-within-a-life"),
        pytest.param({"core": [Sample(s, 1, s, (30 << 20) + 20_000 * s, 40) for s in range(600)]}, False, id="core"),
    ],
)
def test_what_grows_is_seen(samples: dict[str, list[Sample]], bounded: bool) -> None:
    assert (flatness(samples, 600.0) == []) is bounded


def test_health_of_the_process_before_does_not_count() -> None:
    heard = Heard()
    assert not heard.has_said("edgeml.X", 0.0)
    heard.local("edgeml/health/X", json.dumps({"component": "edgeml.X", "at": 100.0, "uptime_s": 40.0}).encode())
    assert heard.has_said("edgeml.X", 60.0)
    assert not heard.has_said("edgeml.X", 61.0)


def test_what_came_before_does_not_flow() -> None:
    heard = Heard()
    heard.local("edgeml/inference/x", b"{}")
    heard.local("edgeml/inference/x", b"{}")
    assert heard.flows("edgeml/inference/x", 0.0)
    assert not heard.flows("edgeml/inference/x", time.monotonic())
    heard.local("edgeml/echo/X", b"")
    assert not heard.flows("edgeml/echo/X", 0.0)


@pytest.mark.soak
@pytest.mark.timeout(SECONDS + 480)
@pytest.mark.parametrize("profile", ["java", "lite"])
def test_components_that_are_ended_again_and_again(
    profile: str, tmp_path: Path, built: workspace.Workspace, stack: ExitStack
) -> None:
    cloud = stack.enter_context(LocalCloud())
    site = Site(tmp_path, cloud, profile, stack)
    environment = {**cloud.environment(), "EI_HOST": site.studio.host}
    root = tmp_path / "gg"
    built.lend_venvs(PROCESSES, root)
    with running_core(root, profile, cloud.mqtt_url, environment, site.secrets) as core, ExitStack() as watching:
        deploy(core, site, built, tmp_path / "deployment", profile)
        watching.enter_context(listening(core, site.heard))
        began = time.monotonic()
        site.tick()
        must_flow(site, began)
        meter = Meter(core, began := time.monotonic())
        watching.callback(meter.stop)
        ended: dict[str, float] = {}
        for ending in plan(list(PROCESSES.values()), SECONDS, EVERY_S, profile):
            while time.monotonic() < began + ending.at:
                time.sleep(0.2)
                site.tick()
            ended[ending.component] = end(core, ending)
            assert "BROKEN" not in core.states().values(), core.states()
        must_be_well(core, site, ended)
        must_flow(site, time.monotonic())
        must_be_sampled(site)
        eventually(site.job_has_ended, SETTLE_S, "the last update of a model")
        must_have_arrived(core, site)
        meter.stop()
        waiting = [str(path) for path in root.rglob("*.payload")]
        logs = core.logs()
    samples = len(site.studio.uploads)
    print(f"\n{profile}: {site.updates} updates of a model, {samples} samples in Studio; by flow:")
    for flow, text in site.heard.summary().items():
        print(f"  {flow:32} {text}")
    too_much = flatness(meter.samples, SECONDS)
    assert not waiting, "something waits in quarantine"
    assert not [name for name, text in logs.items() if "Traceback" in text]
    assert not too_much
    assert not list(site.rings.iterdir())
    assert not list(Path("/dev/shm").glob(f"shm-{TAG}*"))
    assert not [process.cmdline() for process in psutil.Process().children() if str(root) in process.cmdline()]

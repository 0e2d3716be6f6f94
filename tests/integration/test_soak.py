"""All components at work on a core, one of them ended every ten seconds: nothing breaks, stops flowing, or grows.

`./scripts/test --soak tests/integration/test_soak.py -s` prints the figures. SOAK_SECONDS (600) makes it shorter for
a trial; what needs longer to be judged is then left out, which the figures show. Where the core stands in for Nucleus
Lite, each component is ended twice only: Lite itself breaks what starts more often within an hour.
"""

import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

import psutil
import pytest

from localdev import workspace
from localdev.cloud import LocalCloud
from localdev.demo.stages.logs import written
from soak_growth import flatness
from soak_site import TAG, Site
from soak_support import (
    EVERY_S,
    PROCESSES,
    Core,
    Meter,
    end,
    listening,
    plan,
    running_core,
)
from support import eventually

SECONDS = float(os.environ.get("SOAK_SECONDS", "600"))
SETTLE_S = 60.0  # at the end, for what was ended last
FLOWS_WITHIN_S = 60.0  # the window of the turbine is long

BUNDLES = ["duration", "emotion", "face_detector", "image_classifier", "wind_turbine"]
LOCAL_FLOWS = [
    "edgeml/camera/front/frame",
    *(f"edgeml/inference/{pipeline}" for pipeline in ("colours", "faces", "turbine", "duration", "pictures")),
    "local/inference",
    "local/result",
    "edgeml/serial/board/record",
]
IOT_FLOWS = ["IoT: ModelInference", "IoT: SoakCamera", "IoT: SoakBoard", "IoT: report", "IoT: look"]


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
        eventually(partial(site.flows, flow, since), FLOWS_WITHIN_S, flow)


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

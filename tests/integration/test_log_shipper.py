"""The built LogShipper on a core: the core's and the components' log files arrive in CloudWatch Logs, line by line."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest

from core_support import component_version, deploy
from integration.conftest import Start
from localdev import workspace
from localdev.cloud import LocalCloud
from localdev.core import LocalCore
from log_shipper.privileges import UID
from support import eventually

CONFIG: dict[str, Any] = {
    "logsUploaderConfiguration": {"systemLogsConfiguration": {"uploadToCloudWatch": True}},
    "periodicUploadIntervalSec": 0.2,
    "healthMetrics": {"enabled": True},
}


def stored(cloud: LocalCloud, group: str) -> list[str]:
    """Messages of all streams of the log group, in the order of time; none while there is no such group."""
    logs = cloud.aws.client("logs")
    if not logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"]:
        return []
    pages = logs.get_paginator("filter_log_events").paginate(logGroupName=group)
    return [event["message"] for page in pages for event in page["events"]]


def lines(folder: Path, name: str) -> list[str]:
    files = sorted(folder.glob(f"{name}*.log"), key=lambda path: path.stat().st_mtime_ns)
    return [line for path in files for line in path.read_text().splitlines() if line]


@pytest.mark.parametrize("profile", ["java", "lite"])
def test_the_core_and_component_logs_are_found_in_cloudwatch(profile: str, start: Start, cloud: LocalCloud) -> None:
    group = f"/{profile}/{{componentType}}/{{componentName}}"  # the cloud is one for both profiles
    with start({"log_shipper": {**CONFIG, "logGroup": group}}, profile=profile) as core:
        folder = core.root / "logs"
        own, system = f"/{profile}/UserComponent/edgeml.LogShipper", f"/{profile}/GreengrassSystemComponent/System"
        eventually(lambda: "started component" in "".join(stored(cloud, own)), 15, "the component's own log")
        arrived = stored(cloud, own)
        eventually(lambda: len(stored(cloud, system)) >= 3, 15, "the core's log")
        assert core.state("edgeml.LogShipper") == "RUNNING"
    written = lines(folder, "edgeml.LogShipper")
    # A record may have lines of its own, such as the one of the recipe's script.
    assert "\n".join(written).startswith("\n".join(arrived))


def rights(pid: int | None) -> set[tuple[str, str]]:
    """User and effective capabilities of every thread of a process."""
    found = set()
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        found.add((fields["Uid"].split()[1], fields["CapEff"].strip()))
    return found


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("sudo"), reason="needs root and sudo")
def test_beside_components_of_another_user_it_runs_from_roots_folder(
    built: workspace.Workspace, cloud: LocalCloud
) -> None:
    with tempfile.TemporaryDirectory(prefix="edgeml-core-") as folder:
        root = Path(folder)
        root.chmod(0o755)
        builds = built.build(["log_shipper"])
        name, version = component_version(builds[0])
        built.lend_venvs(["log_shipper"], root)
        (root / "work" / name / "venv").unlink()  # of a python3 that the other user may not have; and not needed
        with LocalCore(root, profile="java", env=cloud.environment(), mqtt_url=cloud.mqtt_url) as core:
            (root / "logs").chmod(0o700)  # as the nucleus has it
            deploy(core, builds, configuration={name: {**CONFIG, "logGroup": "/private/{componentName}"}})
            eventually(lambda: "started component" in "".join(stored(cloud, f"/private/{name}")), 15, "its own log")
            assert core.state(name) == "RUNNING"
            artifact = root / "packages" / "artifacts" / name / version / "log_shipper.zip"
            if artifact.stat().st_uid == 0:
                pytest.skip("this core runs components as its own user")
            assert rights(core.pid(name)) == {(str(UID), "0000000000000004"), (str(UID), "0000000000000000")}
            core.restart_component(name)
            eventually(lambda: "".join(stored(cloud, f"/private/{name}")).count("started component") > 1, 15, "again")
            assert (str(UID), "0000000000000004") in rights(core.pid(name))
            delete = {"systemLogsConfiguration": {"deleteLogFileAfterCloudUpload": True}}
            core.deploy(update_config={name: {"MERGE": {"logsUploaderConfiguration": delete}}}, timeout=60)
            # There is no way back to root: the process ends, and the core starts another.
            eventually(lambda: {user for user, _ in rights(core.pid(name))} == {"0"}, 15, "root's rights")
            core.wait_state(name, "RUNNING")
        assert (root / "private" / "state" / "checkpoint.db").stat().st_uid in (0, UID)
        assert not (root / "work" / name / "checkpoint.db").exists()

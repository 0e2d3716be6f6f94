"""Built components as on a device: a core of root starts them through real sudo, as another user.

pytest's own folders are closed to other users, so the core has one that is open to them.
"""

import contextlib
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core_support import deploy
from edgeml import install
from localdev import workspace
from localdev.cloud import LocalCloud
from localdev.core import LocalCore
from localdev.core.users import DEFAULT_USERS, User, find_user
from support import eventually

pytestmark = pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("sudo"), reason="needs root and sudo")

START: dict[str, dict[str, Any]] = {
    "camera_capture": {"cameras": {"sudo": {"type": "test_pattern", "fps": 5, "width": 64, "height": 48}}},
    "edge_impulse_linux": {},
    "edge_impulse_runner": {},
    "inferencer": {},
    "log_shipper": {"periodicUploadIntervalSec": 0.2, "retentionDays": 30},
    "model_updater": {},
    "monitor": {"port": 0, "address": "0.0.0.0"},  # noqa: S104  (by TLS, with a certificate that it makes)
    "sample_requester": {"interval_s": 3600},
    "serial_scraper": {},
}
CHANGE: dict[str, dict[str, Any]] = {  # numbers that reach the component as doubles
    "camera_capture": {"cameras": {"sudo": {"slots": 5}}},
    "edge_impulse_linux": {"jpeg_quality": 90},
    "edge_impulse_runner": {"Parameters": {"iotcore_backoff": 7}},
    "inferencer": {"result_spool_bytes": 33554432},
    "log_shipper": {"retentionDays": 14},
    "model_updater": {"max_download_bytes": 1048576},
    "monitor": {"vitals": {"interval_s": 10, "cpu_celsius": 70}},
    "sample_requester": {"interval_s": 1800},
    "serial_scraper": {"ports": {"p": {"device": "/dev/ttyNowhere*", "baud": 9600}}},
}


@pytest.fixture(scope="module")
def user() -> User:
    for name in DEFAULT_USERS:
        with contextlib.suppress(KeyError):
            return find_user(name)
    pytest.skip(f"none of the users {', '.join(DEFAULT_USERS)} is here")


@pytest.fixture(scope="module")
def root(user: User) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="edgeml-sudo-"))
    folder.chmod(0o755)
    yield folder / "gg"
    shutil.rmtree(folder)


def as_user(user: User, script: str) -> subprocess.CompletedProcess[str]:
    command = ["sudo", "-n", "-u", user.name, "-g", user.group, "--", "sh", "-c", script]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)


def lend(builds: list[Path], user: User, root: Path) -> None:
    """Environments for the python3 that the user has, of the packages that this checkout's cache holds.

    An interpreter below /root is closed to the user, so the cache's environments cannot be lent as they are. Root's
    own can be.
    """
    program = "import sys; print(sys.executable, sys.implementation.cache_tag)"
    told = as_user(user, f'python3 -I -c "{program}"').stdout.split()
    if not told or told[1] != sys.implementation.cache_tag:
        pytest.skip(f"python3 of {user.name} is {told or 'none'}, the packages are for {sys.implementation.cache_tag}")
    made = root.parent / "made"
    for build in builds:
        (archive,) = build.glob("artifacts/*/*/*.zip")
        name = archive.parent.parent.name
        cached = made / "work" / name / "venv"
        if not cached.exists():
            continue  # a component without packages
        lock = (cached / install.STAMP).read_text()
        venv = root / "work" / name / f"venv-{_key(told[0], lock)}"
        subprocess.run([told[0], "-I", "-m", "venv", "--without-pip", str(venv)], check=True, timeout=60)
        site = next(venv.glob("lib/python*/site-packages"))
        site.rmdir()
        packages = next(cached.resolve().glob("lib/python*/site-packages"))
        if as_user(user, f"ls '{packages}'").returncode == 0:
            site.symlink_to(packages)
        else:
            shutil.copytree(packages, site, symlinks=True)
        (venv / install.STAMP).write_text(lock)
        (venv.parent / "venv").symlink_to(venv.name)
    shutil.copytree(made / "private", root / "private", symlinks=True)  # of privileged components, root's alone


def _key(python: str, lock: str) -> str:
    """The name that this interpreter's install step gives an environment of a lock."""
    program = "import runpy, sys; print(runpy.run_path(sys.argv[1])['key'](sys.stdin.buffer.read()))"
    command = [python, "-I", "-c", program, str(workspace.ROOT / "components" / "edgeml" / "install.py")]
    done = subprocess.run(command, input=lock.encode(), capture_output=True, check=True, timeout=30)
    return done.stdout.decode().strip()


@pytest.fixture(scope="module")
def core(root: Path, user: User, built: workspace.Workspace, cloud: LocalCloud) -> Iterator[LocalCore]:
    """All components at once, as on a device that has them all."""
    builds = built.build(START)
    built.lend_venvs(START, root.parent / "made")
    lend(builds, user, root)
    with LocalCore(root, mqtt_url=cloud.mqtt_url, env=cloud.environment()) as running:
        assert f"as {user}, through sudo" in running.note
        configuration = {component(package): values for package, values in START.items()}
        deploy(running, builds, configuration=configuration, timeout=90)
        yield running


def component(package: str) -> str:
    return f"edgeml.{''.join(part.capitalize() for part in package.split('_'))}"


@pytest.mark.parametrize("package", START)
def test_start_configure_stop(package: str, core: LocalCore, user: User) -> None:
    name = component(package)
    try:
        eventually(lambda: "started component=" in core.log(name), 20, "its start")
    except AssertionError as error:
        raise AssertionError(f"{name} is {core.state(name)}:\n{core.log(name)[-3000:]}") from error
    pid = core.pid(name)
    assert pid is not None
    if package != "log_shipper":  # which needs root, and lets go of most of it
        assert Path(f"/proc/{pid}").stat().st_uid == user.uid
    core.deploy(update_config={name: {"MERGE": CHANGE[package]}}, timeout=20)
    eventually(lambda: "configuration changed" in core.log(name), 10, f"the change: {core.log(name)[-2000:]}")
    assert core.pid(name) == pid
    core.stop_component(name)
    assert core.state(name) == "FINISHED"
    eventually(lambda: "Run script exited. {exitCode=0" in core.log(name), 5, f"its end: {core.log(name)[-2000:]}")
    assert "Traceback" not in core.log(name)
    assert not Path(f"/proc/{pid}").exists()
    work = core.root / "work" / name
    assert pwd.getpwuid(work.stat().st_uid).pw_name == user.name


def test_what_the_user_of_components_cannot_reach(core: LocalCore, user: User) -> None:
    root = core.root
    for path in ("logs", "config", "packages/recipes", "cli_ipc_info"):
        if (root / path).exists():
            assert as_user(user, f"ls {root}/{path}").returncode != 0, path
    assert as_user(user, f"cat {root}/config/state.json").returncode != 0
    assert as_user(user, f"touch {root}/x {root}/work/x {root}/packages/artifacts/x").returncode != 0


def test_a_rewritten_artifact_of_a_privileged_component_runs_nothing_as_root(core: LocalCore, user: User) -> None:
    """Artifacts belong to that user, who can change them; root starts only what the recipe's sum tells."""
    name = component("log_shipper")
    mark = core.root.parent / "mark"
    archive = next((core.root / "packages" / "artifacts" / name).glob("*/log_shipper.zip"))
    folder = next((core.root / "packages" / "artifacts-unarchived" / name).glob("*/log_shipper"))
    evil = f"import os; open('{mark}', 'w').write(str(os.geteuid()))"
    script = f"""
        chmod u+w {archive} {folder}/*.py {folder}/*/*.py && echo junk > {archive} &&
        for file in $(find {folder} -name '*.py'); do echo "{evil}" > $file; done
    """
    assert as_user(user, script).returncode == 0
    core.restart_component(name)
    started = core.log(name).count("started component=")
    eventually(lambda: core.log(name).count("started component=") >= max(started, 2), 20, "its start")
    assert not mark.exists()

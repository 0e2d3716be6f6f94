"""What runs as root, attacked by the user who owns all that a deployment brings: the recipe's own scripts, as they are.

The artifact is a small one, with the real module in it; what it runs tells who and where it is.
"""

import contextlib
import hashlib
import os
import shutil
import subprocess
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from localdev.core import Profile, check_recipe
from log_shipper import privileges
from privileged_support import NAME, NOBODY, Device, untouched
from support import ROOT

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be attacked by another user")


def test_pip_heeds_nothing_of_the_users(device: Device) -> None:
    """It makes the environment that the other tests of this module run in."""
    shutil.rmtree(device.private)
    settings = f"[global]\nlog = {device.loot}\nindex-url = http://[::1]:9\n"
    device.attack(
        f"open({str(device.work / 'pip.conf')!r}, 'w').write({settings!r})",
        *(f"open({str(device.work / name)!r}, 'w').write({device.evil()!r})" for name in ("pip.py", "ensurepip.py")),
    )
    done = device.step("install", HOME=str(device.work), TMPDIR=str(device.work), PIP_LOG=str(device.loot))
    assert done.returncode == 0, done.stderr
    assert "INFO install making" in done.stdout
    assert (device.private / ".venv.lock").stat().st_mode & 0o777 == 0o600  # nobody else can hold it
    untouched(device)


def test_root_runs_its_own_copy_from_its_own_folder(device: Device) -> None:
    assert device.step("install").returncode == 0
    seen = device.run()
    assert seen["uid"] == 0
    assert seen["cwd"] == str(device.private / "state")
    assert seen["file"].startswith(f"{device.private}/code-{device.digest}")
    assert seen["python"].startswith(str(device.private))
    assert (seen["argv"], seen["token"], seen["no_new_privs"]) == (["--root", str(device.root)], "token", "1")
    assert not [path for path in seen["path"] if path.startswith((str(device.work), str(device.unpacked)))]
    for folder, closed in ((device.private / "state", 0o077), (device.private / f"code-{device.digest}", 0o022)):
        assert (folder.stat().st_uid, folder.stat().st_mode & closed) == (0, 0)


ARCHIVES: dict[str, Callable[[Device], str]] = {
    "other bytes": lambda d: f"open({str(d.archive)!r}, 'ab').write(b'x')",
    "another archive": lambda d: f"shutil.copy('/bin/true', {str(d.archive)!r})",
    "a link": lambda d: f"os.symlink('/etc/shadow', {str(d.archive)!r})",
    "a pipe that nobody writes": lambda d: f"os.mkfifo({str(d.archive)!r})",
    "a folder": lambda d: f"os.mkdir({str(d.archive)!r})",
    "nothing": lambda d: "pass",
    "more than any disk holds": lambda d: f"os.truncate(os.open({str(d.archive)!r}, os.O_CREAT | os.O_RDWR), 1 << 42)",
    "a linked folder": lambda d: (
        f"os.rename({str(d.artifacts)!r}, {str(d.artifacts)!r} + '.old') or os.symlink('/etc', {str(d.artifacts)!r})"
    ),
}


@pytest.mark.parametrize("step", ["install", "run"])
@pytest.mark.parametrize("attack", ARCHIVES)
def test_an_archive_that_is_not_what_was_built_is_refused(device: Device, attack: str, step: str) -> None:
    removal = "" if attack in ("other bytes", "a linked folder") else f"os.unlink({str(device.archive)!r})"
    device.attack(removal or "pass", ARCHIVES[attack](device))
    done = device.step(step)
    assert done.returncode != 0
    assert str(device.archive) in done.stderr
    assert not list(device.private.glob("*.zip*")) + list(device.private.glob("code-*"))
    untouched(device)


def overwritten(device: Device) -> list[str]:
    """Everything that the components' user can write, by something that tells who ran it."""
    evil = device.evil()
    lines = []
    for path in device.unpacked.rglob("*.py"):
        lines.append(f"os.chmod({str(path)!r}, 0o644) or open({str(path)!r}, 'w').write({evil!r})")
    names = ("sitecustomize", "usercustomize", "os", "hashlib", "zipfile", "log_shipper", "edgeml", "ctypes", "fcntl")
    for folder in (device.work, device.artifacts, device.unpacked, device.work / "state"):
        lines.append(f"os.makedirs({str(folder)!r}, exist_ok=True)")
        lines += [f"open({str(folder / name)!r} + '.py', 'w').write({evil!r})" for name in names]
    binary = str(device.work / "venv" / "bin")
    lines.append(f"os.makedirs({binary!r}, exist_ok=True)")
    shell = f"#!/bin/sh\nid >> {device.loot}\n"
    lines += [
        f"open({binary!r} + '/python', 'w').write({shell!r})",
        f"os.chmod({binary!r} + '/python', 0o755)",
        f"open({str(device.work / 'pip.conf')!r}, 'w').write('[global]\\nno-such-option = 1\\nlog = {device.loot}\\n')",
        f"os.unlink({str(device.archive)!r})",
        f"os.symlink('/etc/shadow', {str(device.archive)!r})",
    ]
    # The private folder, should anything of it be within reach.
    lines += [f"open({str(device.private)!r} + {name!r}, 'w')" for name in ("/x", "/venv/x", "/state/x")]
    lines.append(f"os.rename({str(device.private)!r}, {str(device.private)!r} + '.old')")
    return lines


def test_what_is_rewritten_between_installation_and_start_never_runs(device: Device) -> None:
    assert device.step("install").returncode == 0
    device.attack(*overwritten(device))
    seen = device.run()
    assert seen["file"].startswith(f"{device.private}/code-{device.digest}")
    assert device.step("install").returncode == 0  # as at each start of the nucleus
    assert device.run()["python"] == seen["python"]
    untouched(device)


def test_what_is_rewritten_before_the_installation_never_runs(device: Device) -> None:
    good = device.archive.read_bytes()
    device.attack(*overwritten(device))
    assert "log_shipper.zip" in device.step("install").stderr
    device.archive.unlink()
    device.archive.write_bytes(good)
    assert device.step("install").returncode == 0
    assert device.run()["uid"] == 0
    untouched(device)


def test_an_archive_that_is_exchanged_all_the_time_runs_only_as_it_was_built(device: Device) -> None:
    stopping = threading.Event()
    good = device.archive.read_bytes()
    bad = device.artifacts / "bad.zip"
    with zipfile.ZipFile(bad, "w") as archive:
        for name in ("__main__.py", "log_shipper/__init__.py", "log_shipper/privileged.py", "edgeml/install.py"):
            archive.writestr(name, device.evil())

    def exchange() -> None:
        turn = 0
        while not stopping.is_set():
            turn += 1
            fresh = device.artifacts / "fresh"
            with contextlib.suppress(OSError):
                fresh.unlink()
            if turn % 3 == 0:
                fresh.symlink_to(bad)
            else:
                fresh.write_bytes(good if turn % 3 == 1 else bad.read_bytes())
            fresh.rename(device.archive)
            time.sleep(0.0005)  # some hundred times in a step, and what is attacked gets to run

    attacker = threading.Thread(target=exchange)
    attacker.start()
    try:
        for _ in range(6):
            done = device.step("run")
            assert done.returncode == 0 or str(device.archive) in done.stderr
            for path in device.private.glob("*.zip*"):
                path.unlink()
            for path in device.private.glob("code-*"):
                shutil.rmtree(path)
    finally:
        stopping.set()
        attacker.join()
    untouched(device)


def test_the_user_of_its_own_is_none_that_systemd_gives_to_services() -> None:
    assert privileges.UID not in range(61_184, 65_520)
    assert privileges.UID < 65_534


@pytest.mark.parametrize("kind", ["of another user", "writable by all", "in another user's folder", "a link there"])
def test_a_folder_that_is_not_roots_alone_is_refused(device: Device, kind: str) -> None:
    above = device.root / "above"
    above.mkdir()
    private = above / "private"
    if kind == "a link there":
        private.symlink_to(device.work)
    else:
        private.mkdir()
    if kind == "of another user":
        os.chown(private, NOBODY, NOBODY)
    elif kind == "writable by all":
        private.chmod(0o1777)
    elif kind == "in another user's folder":
        os.chown(above, NOBODY, NOBODY)
    try:
        done = device.step("run", EDGEML_PRIVATE=str(private))
        assert done.returncode != 0
        assert "not for root alone to write" in done.stderr
    finally:
        shutil.rmtree(above)


def test_where_all_is_roots_nothing_is_copied(device: Device) -> None:
    device.deploy(owner=0)
    (device.work / "venv").symlink_to((device.private / "venv").resolve())
    seen = device.run()
    assert seen["cwd"] == str(device.work)
    assert seen["file"].startswith(str(device.unpacked))
    assert not list(device.private.glob("code-*"))
    os.chown(device.unpacked / "edgeml" / "install.py", NOBODY, NOBODY)  # one file is enough to be wary
    assert device.run()["cwd"] == str(device.private / "state")


def test_the_version_before_is_kept_and_older_ones_are_removed(device: Device) -> None:
    digests = []
    for number in range(3):
        device.deploy(f"version {number}")
        digests.append(device.digest)
        assert device.step("install").returncode == 0
    assert sorted(path.name for path in device.private.glob("code-*")) == sorted(f"code-{d}" for d in digests[1:])
    assert sorted(path.name for path in device.private.glob("*.zip*")) == sorted(f"{d}.zip" for d in digests[1:])


def built(*options: str) -> tuple[dict[str, Any], bytes, str]:
    """The recipe that a build makes, its bytes, and the digest of the archive beside it."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        ignored = shutil.ignore_patterns("greengrass-build", "__pycache__")
        for part in ("components/log_shipper", "components/edgeml", "recipes", "gdk-config"):
            shutil.copytree(ROOT / part, copy / part, symlinks=True, ignore=ignored)
        (copy / "scripts").mkdir()
        for script in ("build.py", "device_wheels.py"):
            shutil.copy(ROOT / "scripts" / script, copy / "scripts")
        command = ["python3", "../../scripts/build.py", *options]
        done = subprocess.run(command, cwd=copy / "components/log_shipper", timeout=60, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        (archive,) = copy.glob("components/log_shipper/greengrass-build/artifacts/*/*/*.zip")
        (recipe,) = copy.glob("components/log_shipper/greengrass-build/recipes/*")
        raw = recipe.read_bytes()
        return yaml.load(raw, yaml.CSafeLoader), raw, hashlib.sha256(archive.read_bytes()).hexdigest()


@pytest.mark.parametrize("options", [(), ("--unprivileged",)], ids=["privileged", "unprivileged"])
def test_the_build_writes_the_digest_into_a_recipe_that_both_nuclei_take(options: tuple[str, ...]) -> None:
    recipe, raw, digest = built(*options)
    for profile in Profile:
        assert check_recipe(recipe, raw, profile) == []
    assert len(yaml.dump(recipe)) < 8000  # as GDK writes it again
    lifecycle = recipe["Manifests"][0]["Lifecycle"]
    assert b"SHA256_OF_ZIP" not in raw
    if options:
        assert "RequiresPrivilege" not in lifecycle["run"]
    else:
        assert lifecycle["install"]["Script"].replace("' install ", "' run ") == lifecycle["run"]["Script"]
        assert lifecycle["run"]["Script"].rstrip().endswith(digest)


@pytest.mark.parametrize("lite", [True, False])
def test_the_unprivileged_installation_lets_lite_read_the_journal_and_does_the_rest_as_the_user(
    device: Device, lite: bool
) -> None:
    if subprocess.run(["/usr/bin/python3", "-V"], user=NOBODY, capture_output=True, timeout=10).returncode:
        pytest.skip("another user has no python3 here")
    recipe, _, _ = built("--unprivileged")
    install = device.unpacked / "edgeml" / "install.py"
    install.chmod(0o644)
    install.write_text("import os; print(os.getresuid(), os.getresgid(), os.getgroups(), os.getcwd())")
    socket = "/x/gg-ipc.socket" if lite else "/x/ipc.socket"
    units = device.root / "units"
    done = device.step(
        "install",
        recipe,
        AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT=socket,
        EDGEML_UNITS=str(units),
        PATH="/usr/bin:/bin",
    )
    ids = (NOBODY, NOBODY, NOBODY)
    assert done.stdout.strip() == f"{ids} {ids} [] {device.work}", done.stderr
    drop_in = units / f"ggl.{NAME}.service.d" / "journal.conf"
    assert drop_in.exists() is lite
    if lite:
        assert drop_in.read_text() == "[Service]\nSupplementaryGroups=systemd-journal\n"
        shutil.rmtree(units)

"""The install step as the device runs it: a script in an unpacked artifact that carries a tiny wheel, no network."""

import ast
import base64
import contextlib
import hashlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeml import install as step
from support import ROOT, eventually

SCRIPT = ROOT / "components" / "edgeml" / "install.py"
# Stands in for pip where what pip does is not the point: unpacks the wheel that the lock names.
PIP = """
import pathlib, re, sys, sysconfig, zipfile
options = dict(zip(sys.argv, sys.argv[1:]))
name, version = re.match("(.*)==(.*) --hash", pathlib.Path(options["-r"]).read_text()).groups()
(wheel,) = pathlib.Path(options["--find-links"]).glob(f"{name}-{version}-*.whl")
zipfile.ZipFile(wheel).extractall(sysconfig.get_path("purelib"))
"""
# The script with what it calls replaced: `NAME=before`, `NAME=after` kill the process there; `NAME=CODE` is raised.
# `stubs`: the pip above, and no waiting until the disk of a busy machine has written what others wrote.
INJECTED = """
import importlib.util, os, pathlib, signal, sys, types
install = types.ModuleType("install")
install.__file__ = sys.argv[1]
exec(compile(pathlib.Path(sys.argv[1]).read_bytes(), sys.argv[1], "exec"), vars(install))

def replaced(original, what):
    def call(*arguments, **named):
        if what.isdigit():
            raise OSError(int(what), os.strerror(int(what)))
        if what == "after":
            original(*arguments, **named)
        os.kill(os.getpid(), signal.SIGKILL)
    return call

class Wheel:  # of pip
    def __init__(self, path): pass
    def __enter__(self): return self
    def __exit__(self, *error): pass
    def extractall(self, folder): (folder / "pip").write_text(PIP)

class Library:  # of C
    whole = install.ctypes.CDLL(None)
    def __init__(self, name): pass
    def __getattr__(self, name): return (lambda *given: 0) if name == "syncfs" else getattr(self.whole, name)

for change in sys.argv[2:]:
    if change == "stubs":
        install.zipfile.ZipFile, install.os.fsync, install.ctypes.CDLL = Wheel, lambda descriptor: None, Library
        continue
    name, _, what = change.partition("=")
    where = install
    for part in name.split(".")[:-1]:
        where = getattr(where, part)
    setattr(where, name.split(".")[-1], replaced(getattr(where, name.split(".")[-1]), what))
install.main()
""".replace("PIP", repr(PIP))


def make_artifact(folder: Path, version: str, size: int = 0) -> Path:
    """An unpacked artifact whose lock names package `tiny` of this version, which has `size` bytes of data."""
    (folder / "edgeml").mkdir(parents=True)
    (folder / "wheels").mkdir()
    shutil.copy(SCRIPT, folder / "edgeml")
    wheel = folder / "wheels" / f"tiny-{version}-py3-none-any.whl"
    files = {
        "tiny/__init__.py": f"version = {version!r}\n".encode(),
        "tiny/tests/test_it.py": b"",
        "tiny/inner/tests/data.bin": b"x",
        "tiny/testing.py": b"",
        "tiny/data.bin": bytes(size),
        "botocore/data/s3/x.json": b"",
        "botocore/data/ec2/x.json": b"",
        "botocore/data/endpoints.json": b"",
        "cv2/data/face.xml": b"",
        "cv2/data/__init__.py": b"",
        f"tiny-{version}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: tiny\nVersion: {version}\n".encode(),
        f"tiny-{version}.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(
        f"{name},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b'=').decode()},{len(data)}\n"
        for name, data in files.items()
    )
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
        archive.writestr(f"tiny-{version}.dist-info/RECORD", record + f"tiny-{version}.dist-info/RECORD,,\n")
    lock(folder, version, hashlib.sha256(wheel.read_bytes()).hexdigest())
    return folder


def lock(artifact: Path, version: str, digest: str) -> None:
    (artifact / "requirements.lock").write_text(f"tiny=={version} --hash=sha256:{digest}\n")


def command(artifact: Path, *changes: str) -> list[str]:
    script = str(artifact / "edgeml" / "install.py")
    return [sys.executable, "-I", *(["-c", INJECTED, script, *changes] if changes else [script])]


def install(artifact: Path, work: Path, *changes: str, real: bool = False) -> subprocess.CompletedProcess[str]:
    """`real`: with pip and a disk that is waited for."""
    work.mkdir(exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": "/nonexistent"}
    words = command(artifact, *([] if real else ["stubs"]), *changes)
    return subprocess.run(words, cwd=work, env=environment, capture_output=True, text=True, timeout=60)


def runs(work: Path) -> str:
    """The version of `tiny` that a component in this work folder would import."""
    python = [str(work / "venv" / "bin" / "python"), "-I", "-c", "import tiny; print(tiny.version)"]
    done = subprocess.run(python, capture_output=True, text=True, timeout=20, cwd=work)
    return done.stdout.strip() or done.stderr


def venv_of(artifact: Path) -> str:
    return f"venv-{step.key((artifact / 'requirements.lock').read_bytes())}"


def names(work: Path) -> set[str]:
    return {path.name for path in work.iterdir()} - {".venv.lock"}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Artifacts `1`, `2` and `3`, a work folder `work` with 1 and 2 installed and 1 in use, and `work-3`."""
    folder = tmp_path_factory.mktemp("install")
    assert install(make_artifact(folder / "3", "3"), folder / "work-3").returncode == 0
    for version in ("2", "1"):
        done = install(make_artifact(folder / version, version), folder / "work", real=version == "1")
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def artifacts(shared: Path, tmp_path: Path) -> tuple[Path, Path]:
    for version in ("1", "2"):
        shutil.copytree(shared / version, tmp_path / version)
    return tmp_path / "1", tmp_path / "2"


@pytest.fixture
def both(shared: Path, artifacts: tuple[Path, Path], tmp_path: Path) -> Path:
    """A work folder with 1 in use and 2 beside it."""
    return Path(shutil.copytree(shared / "work", tmp_path / "both", symlinks=True))


@pytest.fixture
def third(shared: Path, both: Path, tmp_path: Path) -> Path:
    """A third artifact, whose environment `both` has, too."""
    name = venv_of(shared / "3")
    shutil.copytree(shared / "work-3" / name, both / name, symlinks=True)
    return Path(shutil.copytree(shared / "3", tmp_path / "3"))


@pytest.fixture
def work(both: Path, artifacts: tuple[Path, Path]) -> Path:
    """A work folder with 1 in use."""
    shutil.rmtree(both / venv_of(artifacts[1]))
    (both / "checkpoint").write_text("of the component")
    return both


def test_nothing_is_done_when_nothing_changed(work: Path, artifacts: tuple[Path, Path]) -> None:
    shutil.rmtree(artifacts[0] / "wheels")
    before = snapshot(work)
    done = install(artifacts[0], work, real=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert snapshot(work) == before


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    found = {str(path): path.lstat() for path in folder.rglob("*")}
    return {name: (state.st_mtime_ns, state.st_ino) for name, state in found.items()}


def test_an_environment_holds_what_the_lock_names_compiled_and_little_else(work: Path) -> None:
    (site,) = (work / "venv").resolve().glob("lib/python*/site-packages")
    assert {path.name for path in site.iterdir()} == {"tiny", "tiny-1.dist-info", "botocore", "cv2"}
    assert list((site / "tiny" / "__pycache__").glob("__init__.*.pyc"))
    assert {path.name for path in (site / "tiny").rglob("test*")} - {"testing.py"} == {
        path.name for path in (site / "tiny" / "__pycache__").glob("testing.*")
    }
    assert {path.name for path in (site / "botocore" / "data").iterdir()} == {"s3", "endpoints.json"}
    assert {path.name for path in (site / "cv2" / "data").iterdir()} == {"__init__.py", "__pycache__"}
    assert not list((work / "venv").glob("tmp"))


def test_an_upgrade_keeps_the_one_before_and_a_rollback_needs_nothing(
    both: Path, third: Path, artifacts: tuple[Path, Path]
) -> None:
    for name in ("venv-mine", "venv-0123456789abcdeg", "venvs", "venv-0123456789abcdef0"):
        (both / name).mkdir()
    (both / "checkpoint").write_text("of the component")
    first, second = artifacts
    others = names(both) - {venv_of(artifact) for artifact in (first, second, third)}
    for artifact in (first, second, third):
        shutil.rmtree(artifact / "wheels")
    for artifact, version, kept in (
        (second, "2", {venv_of(first), venv_of(second)}),  # not the third, which is neither new nor before
        (first, "1", {venv_of(first), venv_of(second)}),
        (second, "2", {venv_of(first), venv_of(second)}),
    ):
        done = install(artifact, both)
        assert (done.returncode, done.stdout, runs(both), names(both)) == (0, "", version, others | kept)
    assert (both / "checkpoint").read_text() == "of the component"


def old(work: Path) -> None:
    """As version 1.0 left it: `venv` is a folder."""
    folder = (work / "venv").resolve()
    (work / "venv").unlink()
    folder.rename(work / "venv")


def test_the_folder_of_version_1_0_is_kept_aside_until_the_next_upgrade(
    both: Path, third: Path, artifacts: tuple[Path, Path]
) -> None:
    old(both)
    assert install(artifacts[1], both).returncode == 0
    assert (runs(both), names(both)) == ("2", {"venv", "venv-1.0", venv_of(artifacts[1])})
    (both / "venv").unlink()  # as version 1.0 does when it is rolled back to
    shutil.copytree(both / "venv-1.0", both / "venv", symlinks=True)
    assert install(artifacts[1], both).returncode == 0
    assert (runs(both), names(both)) == ("2", {"venv", "venv-1.0", venv_of(artifacts[1])})
    shutil.copytree(both / venv_of(artifacts[1]), both / venv_of(third), symlinks=True)
    assert install(third, both).returncode == 0
    assert names(both) == {"venv", venv_of(artifacts[1]), venv_of(third)}


@pytest.mark.parametrize(
    ("break_it", "changes", "reason"),
    [
        (lambda artifact: shutil.rmtree(artifact / "wheels"), (), "the package index cannot be reached"),
        (lambda artifact: lock(artifact, "9", "0" * 64), (), "tiny==9"),
        (lambda artifact: lock(artifact, "2", "0" * 64), (), "DO NOT MATCH"),
        (lambda artifact: (artifact / "requirements.lock").unlink(), (), "requirements.lock"),
        (None, ("importlib.util.find_spec=2",), "No such file"),
        (None, ("zipfile.ZipFile.extractall=28",), "the disk is full"),
        (None, ("zipfile.ZipFile.extractall=122",), "the disk is full"),
        (None, ("subprocess.Popen=5",), "Input/output error"),
    ],
    ids=["no network", "no such version", "wrong hash", "no lock", "broken python", "full", "quota", "disk error"],
)  # fmt: skip
def test_a_failed_install_says_why_and_leaves_what_ran(
    break_it: object, changes: tuple[str, ...], reason: str, work: Path, artifacts: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    if callable(break_it):
        break_it(artifacts[1])
    before = names(work)
    done = install(artifacts[1], work, *changes, real=True)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("ERROR install of ")
    assert reason in done.stderr
    assert runs(work) == "1"
    assert names(work) - before <= {venv_of(artifacts[1])} if (artifacts[1] / "requirements.lock").exists() else True
    assert install(artifacts[0], work).returncode == 0


def test_packages_that_pip_put_elsewhere_are_missed(
    work: Path, artifacts: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PIP_TARGET", str(tmp_path / "elsewhere"))
    done = install(artifacts[1], work, real=True)
    assert (done.returncode, runs(work)) == (1, "1")
    assert "is PIP_TARGET or another option of it set?" in done.stderr


def test_whatever_has_its_names_is_replaced_and_what_links_lead_to_stays(
    shared: Path, artifacts: tuple[Path, Path], tmp_path: Path
) -> None:
    """In a folder whose name shells and pip could stumble over."""
    work, precious = tmp_path / 'a $b\'s "wörk"; #%20', tmp_path / "precious"
    for folder in (work, precious):
        folder.mkdir()
    (precious / "file").touch()
    (work / "venv").symlink_to(precious)
    (work / ".venv.next").symlink_to(precious)
    (work / venv_of(artifacts[0])).symlink_to(precious)
    assert install(artifacts[0], work).returncode == 0
    assert (runs(work), [path.name for path in precious.iterdir()]) == ("1", ["file"])
    (work / "venv").unlink()
    (work / "venv").write_text("a file")
    assert install(artifacts[0], work).returncode == 0
    assert runs(work) == "1"
    for make in (os.mkfifo, Path.mkdir, lambda path: path.symlink_to(precious / "file")):  # a pipe is not waited for
        (work / "venv").unlink()
        (work / ".venv.lock").rmdir() if (work / ".venv.lock").is_dir() else (work / ".venv.lock").unlink()
        make(work / ".venv.lock")
        assert install(artifacts[0], work).returncode == 0
        assert runs(work) == "1"
    assert (precious / "file").read_bytes() == b""


@pytest.mark.parametrize("missing", ["venv", "ensurepip"])
def test_a_python_without_venv_is_told_what_to_install(missing: str, work: Path, artifacts: tuple[Path, Path]) -> None:
    code = INJECTED.replace(
        "install.main()",
        f"""
find, variable = importlib.util.find_spec, install.sysconfig.get_config_var
importlib.util.find_spec = lambda name: None if name == {missing!r} else find(name)
install.sysconfig.get_config_var = lambda name: None if name == "WHEEL_PKG_DIR" else variable(name)
install.main()""",
    )
    command = [sys.executable, "-I", "-c", code, str(artifacts[1] / "edgeml" / "install.py")]
    done = subprocess.run(command, cwd=work, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "apt install python3-venv" in done.stderr
    assert runs(work) == "1"


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("cannot mount a small file system")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True, timeout=10)


@pytest.mark.parametrize("size", ["4m", "40m"], ids=["at once", "in pip"])
def test_a_full_disk_is_said_as_such(size: str, both: Path, artifacts: tuple[Path, Path], tmp_path: Path) -> None:
    big = make_artifact(tmp_path / "3", "3", size=50_000_000)
    with small_disk(tmp_path / "disk", size):
        work = Path(shutil.copytree(both, tmp_path / "disk" / "work", symlinks=True))
        before = names(work)
        done = install(big, work, real=True)
        assert done.returncode == 1
        last = done.stderr.strip().splitlines()[-1]
        assert "the disk is full" in last
        assert str(work) in last
        assert (names(work), runs(work)) == (before, "1")


def test_a_disk_that_cannot_be_written_is_enough_for_what_is_installed(
    both: Path, artifacts: tuple[Path, Path], tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", "10m"):
        work = Path(shutil.copytree(both, tmp_path / "disk" / "work", symlinks=True))
        (work / "venv-00000000000000ff").mkdir()  # of a killed install
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path / "disk")], check=True, timeout=10)
        assert install(artifacts[0], work).returncode == 0
        refused = install(artifacts[1], work)
        assert (refused.returncode, runs(work)) == (1, "1")
        assert "Read-only file system" in refused.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize("change", ["zipfile.ZipFile.extractall=after", "trim=before"])
def test_killed_while_it_makes_one_it_leaves_what_ran(change: str, work: Path, artifacts: tuple[Path, Path]) -> None:
    assert install(artifacts[1], work, change).returncode == -signal.SIGKILL
    assert runs(work) == "1"
    assert install(artifacts[0], work).returncode == 0  # a rollback
    assert names(work) == {"checkpoint", "venv", venv_of(artifacts[0])}
    assert runs(work) == "1"


def test_killed_it_is_done_again(work: Path, artifacts: tuple[Path, Path]) -> None:
    assert install(artifacts[1], work, "subprocess.Popen=before").returncode == -signal.SIGKILL
    assert install(artifacts[1], work).returncode == 0
    assert (runs(work), names(work)) == ("2", {"checkpoint", "venv", venv_of(artifacts[0]), venv_of(artifacts[1])})


def test_a_switch_that_fails_leaves_what_ran(both: Path, artifacts: tuple[Path, Path]) -> None:
    done = install(artifacts[1], both, "Path.symlink_to=28")
    assert (done.returncode, runs(both)) == (1, "1")
    assert "the disk is full" in done.stderr
    assert install(artifacts[1], both).returncode == 0
    assert runs(both) == "2"


SWITCH = {
    False: ["Path.symlink_to=before", "Path.symlink_to=after", "Path.replace=after", "os.fsync=after"],
    True: ["Path.symlink_to=before", "Path.symlink_to=after", "shutil.rmtree=before", "Path.rename=before",
           "Path.rename=after", "os.fsync=after"],
}  # fmt: skip


@pytest.mark.parametrize(("of_1_0", "change"), [(old, change) for old, changes in SWITCH.items() for change in changes])
def test_killed_while_it_switches_one_of_both_runs(
    of_1_0: bool, change: str, both: Path, artifacts: tuple[Path, Path]
) -> None:
    if of_1_0:
        old(both)
    assert install(artifacts[1], both, change).returncode == -signal.SIGKILL
    assert runs(both) in ("1", "2")
    done = install(artifacts[1], both)
    assert (done.returncode, done.stdout, runs(both)) == (0, "", "2")
    before = "venv-1.0" if of_1_0 else venv_of(artifacts[0])
    assert names(both) == {"venv", before, venv_of(artifacts[1])}


def test_without_an_exchange_of_names_the_folder_of_1_0_is_moved_in_two_steps(
    both: Path, artifacts: tuple[Path, Path]
) -> None:
    old(both)
    code = INJECTED.replace("install.main()", "install.ctypes.CDLL = lambda *_: object()\ninstall.main()")
    command = [sys.executable, "-I", "-c", code, str(artifacts[1] / "edgeml" / "install.py")]
    done = subprocess.run(command, cwd=both, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert (runs(both), names(both)) == ("2", {"venv", "venv-1.0", venv_of(artifacts[1])})


def test_pip_ends_with_the_install_that_started_it(
    work: Path, artifacts: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Left alive it would write into the environment that the next install makes."""
    shutil.rmtree(artifacts[1] / "wheels")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(20)
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{silent.getsockname()[1]}/simple")
        with subprocess.Popen(command(artifacts[1]), cwd=work, stdout=subprocess.DEVNULL) as running:
            connection, _ = silent.accept()
            running.kill()
        with connection:
            connection.settimeout(10)
            eventually(lambda: connection.recv(1000) == b"", what="end of pip")
    assert runs(work) == "1"


def test_several_at_once_make_it_once(work: Path, artifacts: tuple[Path, Path]) -> None:
    many = [
        subprocess.Popen(
            command(artifacts[1], "stubs"), cwd=work, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    outputs = [process.communicate(timeout=60) for process in many]
    assert [process.returncode for process in many] == [0, 0, 0], outputs
    assert sum(output.count("INFO install making") for output, _ in outputs) == 1
    assert runs(work) == "2"


def test_an_environment_whose_interpreter_is_gone_is_made_anew(work: Path, artifacts: tuple[Path, Path]) -> None:
    python = work / "venv" / "bin" / "python"
    python.unlink()
    python.symlink_to("/nonexistent/python3")
    assert install(artifacts[0], work).returncode == 0
    assert runs(work) == "1"


def test_the_key_changes_with_lock_interpreter_and_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    first = step.key(b"a")
    assert step.key(b"a") == first
    seen = {first, step.key(b"b")}
    for name, value in (("base_prefix", "/opt/python"), ("platform", "other")):
        with monkeypatch.context() as patched:
            patched.setattr(sys, name, value)
            seen.add(step.key(b"a"))
    with monkeypatch.context() as patched:
        patched.setattr(sys.implementation, "cache_tag", "cpython-399")
        seen.add(step.key(b"a"))
    with monkeypatch.context() as patched:
        patched.setattr(step, "SERVICES", ("s3",))
        seen.add(step.key(b"a"))
    assert len(seen) == 6


def test_every_service_that_a_component_calls_keeps_its_description() -> None:
    """`AwsClient("x")` in any component: an environment keeps the descriptions of these services alone."""
    makers, called = ("AwsClient", "client", "create_client", "resource"), set()
    for path in (ROOT / "components").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in makers:
                called |= {word.value for word in node.args[:1] if isinstance(word, ast.Constant)}
    assert {"s3", "secretsmanager", "sagemaker-runtime"} <= called, "makers above is not how clients are made"
    assert called <= set(step.SERVICES), "add it to SERVICES in edgeml/install.py"
    (data,) = [Path(place) / "data" for place in importlib.util.find_spec("botocore").submodule_search_locations]  # type: ignore[union-attr]
    assert [name for name in step.SERVICES if not (data / name).is_dir()] == []

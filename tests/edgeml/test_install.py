"""The install step as the device runs it: a script in an unpacked artifact, no network."""

import ast
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgeml import install as step
from install_support import INJECTED, command, install, names, old, runs, venv_of
from support import ROOT


def test_nothing_is_done_when_nothing_changed(work: Path, artifacts: tuple[Path, Path]) -> None:
    shutil.rmtree(artifacts[0] / "wheels")
    before = snapshot(work)
    done = install(artifacts[0], work, real=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert snapshot(work) == before


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    found = {str(path): path.lstat() for path in folder.rglob("*")}
    return {name: (state.st_mtime_ns, state.st_ino) for name, state in found.items()}


def test_an_environment_holds_what_the_lock_names_compiled_and_little_else(
    artifacts: tuple[Path, Path], tmp_path: Path
) -> None:
    work = tmp_path / "work"
    assert install(artifacts[0], work, real=True).returncode == 0
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


def test_whatever_has_its_names_is_replaced_and_what_links_lead_to_stays(
    artifacts: tuple[Path, Path], tmp_path: Path
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


def test_without_an_exchange_of_names_the_folder_of_1_0_is_moved_in_two_steps(
    both: Path, artifacts: tuple[Path, Path]
) -> None:
    old(both)
    code = INJECTED.replace("install.main()", "install.ctypes.CDLL = lambda *_: object()\ninstall.main()")
    command = [sys.executable, "-I", "-c", code, str(artifacts[1] / "edgeml" / "install.py")]
    done = subprocess.run(command, cwd=both, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert (runs(both), names(both)) == ("2", {"venv", "venv-1.0", venv_of(artifacts[1])})


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
    for text in (path.read_text() for path in (ROOT / "components").rglob("*.py")):
        for node in ast.walk(ast.parse(text)) if any(f"{maker}(" in text for maker in makers) else ():
            if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in makers:
                called |= {word.value for word in node.args[:1] if isinstance(word, ast.Constant)}
    assert {"s3", "secretsmanager", "sagemaker-runtime"} <= called, "makers above is not how clients are made"
    assert called <= set(step.SERVICES), "add it to SERVICES in edgeml/install.py"
    (data,) = [Path(place) / "data" for place in importlib.util.find_spec("botocore").submodule_search_locations]  # type: ignore[union-attr]
    assert [name for name in step.SERVICES if not (data / name).is_dir()] == []


def test_a_runtime_is_another_lock_and_another_environment(tmp_path: Path, artifacts: tuple[Path, Path]) -> None:
    work = tmp_path / "work"
    assert install(artifacts[0], work).returncode == 0
    plain = (work / "venv").readlink()
    shutil.copy(artifacts[1] / "requirements.lock", artifacts[0] / "requirements-cuda-12.4.lock")
    for wheel in (artifacts[1] / "wheels").iterdir():
        shutil.copy(wheel, artifacts[0] / "wheels")
    script = [*command(artifacts[0], "stubs"), "runtime=cuda-12.4"]
    done = subprocess.run(script, cwd=work, capture_output=True, text=True, timeout=60)
    assert (done.returncode, runs(work)) == (0, "2"), done.stderr
    assert (work / "venv").readlink() != plain
    script[-1] = "runtime=tpu"
    done = subprocess.run(script, cwd=work, capture_output=True, text=True, timeout=60)
    assert (done.returncode, runs(work)) == (1, "2")
    assert "requirements-tpu.lock failed: " in done.stderr

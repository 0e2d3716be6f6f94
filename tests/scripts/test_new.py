"""A component made by scripts/new, in a copy of the tree: it passes the checks and its test, and runs on a core."""

import json
import queue
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from core_support import deploy
from localdev import workspace
from localdev.core import LocalCore
from support import ROOT, eventually, python_of

PACKAGE, NAME = "tank_level", "edgeml.TankLevel"
NEEDED = (
    "components/edgeml",
    "components/sample_requester",
    "gdk-config/sample_requester.json",
    "pyproject.toml",
    "recipes/edgeml.SampleRequester.yaml",
    "recipes/schema/edgeml.SampleRequester.json",
    "scripts/arrows.py",
    "scripts/build.py",
    "scripts/device_wheels.py",
    "scripts/docs.py",
    "scripts/localdev/__init__.py",
    "scripts/localdev/core",
    "scripts/localdev/mqtt_end.py",
    "scripts/new.py",
    "scripts/template",
    "tests/blocking.py",
    "tests/conftest.py",
    "tests/forked.py",
    "tests/support.py",
)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What making a component needs of the tree."""
    copy = tmp_path_factory.mktemp("tree")
    for part in NEEDED:
        (copy / part).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / part).is_dir():
            left_out = shutil.ignore_patterns("greengrass-build")  # compiled modules are taken along
            shutil.copytree(ROOT / part, copy / part, symlinks=True, ignore=left_out)
        else:
            shutil.copyfile(ROOT / part, copy / part)
    return copy


@pytest.fixture(scope="module")
def tree(empty: Path) -> Path:
    """The same with a new component."""
    done = python(empty, "scripts/new.py", PACKAGE)
    assert done.returncode == 0, done.stderr
    assert "CONTRIBUTING.md has the walk-through" in done.stdout
    return empty


def python(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [python_of(tree), *arguments]
    return subprocess.run(command, cwd=tree, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    "command",
    [
        ["-m", "ruff", "format", "--check", "."],
        ["-m", "ruff", "check", "."],
        ["scripts/arrows.py"],
        ["scripts/docs.py", "--check"],
        ["-m", "pytest", "-n", "0", "-p", "no:cacheprovider", f"tests/{PACKAGE}"],
    ],
    ids=["format", "lint", "arrows", "documents", "its own test"],
)
def test_it_passes(command: list[str], tree: Path) -> None:
    done = python(tree, *command)
    assert done.returncode == 0, done.stdout + done.stderr


def test_nothing_of_the_template_is_left_in_it(tree: Path) -> None:
    texts = (".py", ".md", ".yaml", ".json", ".in")
    made = [path for path in tree.rglob("*") if PACKAGE in str(path.parent) or path.stem in (PACKAGE, NAME)]
    made = [path for path in made if path.suffix in texts and "greengrass-build" not in path.parts]
    assert len(made) == 12, made
    for path in made:
        assert "newcomponent" not in path.read_text().lower().replace("_", ""), path
    for link in ("recipe.yaml", "gdk-config.json"):
        assert (tree / "components" / PACKAGE / link).is_symlink()


def test_it_answers_on_a_core(tree: Path, tmp_path: Path) -> None:
    built = python(tree, "scripts/build.py", PACKAGE)
    assert built.returncode == 0, built.stderr
    build = tree / built.stdout.strip()
    environment = tmp_path / "gg" / "work" / NAME / "venv"
    environment.parent.mkdir(parents=True)
    workspace.Workspace().lend_venvs(["sample_requester"], tmp_path)  # whose packages are the same
    environment.symlink_to((tmp_path / "work" / "edgeml.SampleRequester" / "venv").resolve())
    heard: queue.Queue[tuple[str, bytes]] = queue.Queue()
    reports: queue.Queue[dict[str, Any]] = queue.Queue()
    with LocalCore(tmp_path / "gg") as core:
        core.subscribe("local/#", lambda topic, payload: heard.put((topic, payload)))
        core.subscribe("edgeml/health/TankLevel", lambda topic, payload: reports.put(json.loads(payload)))
        deploy(core, [build])
        assert heard.get(timeout=10) == ("local/tank_level", b'{"number":1}')
        core.deploy(update_config={NAME: {"MERGE": {"interval_s": 3600}}})
        eventually(lambda: "configuration changed" in core.log(NAME), 10)
        assert heard.get(timeout=10) == ("local/tank_level", b'{"number":2}')
        core.stop_component(NAME)
        while reports.get(timeout=10)["counters"].get("messages") != 2:
            pass
        eventually(lambda: "Run script exited. {exitCode=0" in core.log(NAME), 5)
        assert "Traceback" not in core.log(NAME)


def test_what_is_said_once_is_written_from_there(empty: Path, tmp_path: Path) -> None:
    """A new version, a new default: in one place each, and `docs.py` carries them."""
    tree = tmp_path / "tree"
    shutil.copytree(empty, tree, symlinks=True, ignore=shutil.ignore_patterns(".venv"))
    package = tree / "components" / "sample_requester"
    (package / "__init__.py").write_text('__version__ = "2.3.4"\n')
    config = (package / "config.py").read_text()
    assert "= 10.0" in config
    (package / "config.py").write_text(config.replace("= 10.0", "= 12.5"))
    done = python(tree, "scripts/docs.py", "--check")
    assert done.returncode == 1
    for path in ("recipes/edgeml.SampleRequester.yaml", "gdk-config/sample_requester.json", "README.md"):
        assert f"{path} is not what" in done.stderr
    assert python(tree, "scripts/docs.py").returncode == 0
    recipe = (package / "recipe.yaml").read_text()
    assert '\nComponentVersion: "2.3.4"\n' in recipe
    assert "\n    interval_s: 12.5\n    accessControl:\n" in recipe
    assert '"version": "2.3.4"' in (package / "gdk-config.json").read_text()
    assert python(tree, "scripts/docs.py", "--check").returncode == 0


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "expected a package name"),
        ("TankLevel", "expected a package name"),
        ("tank-level", "expected a package name"),
        ("../tank", "expected a package name"),
        ("tank__level", "expected a package name"),
        ("2tanks", "expected a package name"),
        ("t" * 33, "expected a package name"),
        ("class", "is a word of Python"),
        ("match", "is a word of Python"),
        ("json", "a module of that name"),
        ("numpy", "a module of that name"),
        ("docs", "scripts has that name already"),
        ("sample_requester", "components has that name already"),
        ("support", "tests has that name already"),
    ],
)
def test_a_name_that_cannot_be_had_is_refused(name: str, reason: str, empty: Path) -> None:
    before = sorted(empty.rglob("*.yaml"))
    done = python(empty, "scripts/new.py", name)
    assert done.returncode == 1
    assert reason in done.stderr
    assert sorted(empty.rglob("*.yaml")) == before


def test_what_is_there_is_not_written_over(tree: Path) -> None:
    for path in (tree / "components" / PACKAGE, tree / "tests" / PACKAGE):
        path.rename(tree / path.parent.name / "aside")
        done = python(tree, "scripts/new.py", PACKAGE)
        (tree / path.parent.name / "aside").rename(path)
        assert done.returncode == 1
        assert "already" in done.stderr

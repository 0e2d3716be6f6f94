"""A planted import against each contract is found, by import-linter or scripts/arrows.py: scripts/check runs both."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

import arrows
from support import ROOT, python_of

PACKAGES = {  # file -> what is planted there; what import-linter says of it
    "components/sample_requester/a.py": ("import serial_scraper.lines", "sample_requester.a -> serial_scraper.lines"),
    "components/camera_capture/a.py": ("from localdev import workspace", "camera_capture.a -> localdev.workspace"),
    "components/log_shipper/a.py": ("def f():\n    import bundles.fetch", "log_shipper.a -> bundles.fetch"),
    "components/edgeml/a.py": ("from inferencer.config import Config", "edgeml.a -> inferencer.config"),
    "scripts/localdev/a.py": ("import model_updater.store", "localdev.a -> model_updater.store"),
    "scripts/localdev/core/b.py": ("from edgeml import numbers", "localdev.core.b -> edgeml.numbers"),
    "scripts/deployment/a.py": ("from edgeml import config", "deployment.a -> edgeml.config"),
    "scripts/bundles/a.py": ("from edgeml import models", "bundles.a -> edgeml.models"),
    "scripts/localdev/core/a.py": ("from localdev.demo import stage", "localdev.core.a -> localdev.demo.stage"),
    "scripts/localdev/cloud/a.py": ("import localdev.demo.show", "localdev.cloud.a -> localdev.demo.show"),
    "components/inferencer/x.py": ("import inferencer.y", ""),
    "components/inferencer/y.py": ("import inferencer.x", "No cycles are allowed in inferencer."),
    "scripts/localdev/simulators/x.py": ("from localdev.simulators import y", ""),
    "scripts/localdev/simulators/y.py": (
        "import localdev.simulators.x",
        "No cycles are allowed in localdev.simulators.",
    ),
}
FILES = {  # the same of scripts/arrows.py
    "cloud/functions/live_inference/a.py": "import edgeml",
    "cloud/functions/live_inference/b.py": "from cloud.training import packing",
    "cloud/functions/live_inference/c.py": "def f():\n    import localdev.core",
    "cloud/functions/live_inference/d.py": "import importlib\nimportlib.import_module('bundles.fetch')",
    "cloud/training/a.py": "from inferencer.turbine import FEATURES",
    "cloud/training/b.py": "from localdev.simulators import turbine",
    "cloud/a.py": "import edgeml.numbers",
    "components/sample_requester/build.py": "from localdev import workspace",
    "components/model_store/emotion/build.py": "import inferencer",
    "scripts/localdev/a.py": "import cloud.generate",
    "scripts/localdev/cloud/a.py": "import cloud.generate",
    "scripts/localdev/b.py": "from docs import rows",
    "scripts/bundles/a.py": "import localdev",
    "scripts/deployment/a.py": "import localdev",
    "components/edgeml/a.py": "from support import eventually",
    "components/inferencer/a.py": "import conftest",
    "scripts/a.py": "from tests import support",
    "scripts/localdev/c.py": "import frame_support",
    "scripts/b.py": "from benchmarks import run",
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("tree")
    others = shutil.ignore_patterns("greengrass-build", "__pycache__", "*.onnx", "*.npy", "*.lock", "*.md")
    for top in ("components", "scripts", "cloud/functions", "cloud/training"):
        shutil.copytree(ROOT / top, copy / top, ignore=others)
    for path in (ROOT / "tests").iterdir():
        if path.is_dir():
            (copy / "tests" / path.name).mkdir(parents=True)
    for path in (ROOT / "tests").glob("*.py"):
        shutil.copy(path, copy / "tests")
    shutil.copy(ROOT / "pyproject.toml", copy)
    return copy


def plant(tree: Path, path: str, text: str) -> None:
    with (tree / path).open("a") as file:
        file.write(f"\n{text}\n")


def settings(tree: Path) -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((tree / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    return found


def lint(tree: Path) -> str:
    command = [python_of(tree), str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, timeout=60)
    return f"{done.returncode} {done.stdout}"


def test_each_contract_of_packages_finds_what_is_against_it(tree: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tree, tmp_path / "copy")
    for path, (text, _) in PACKAGES.items():
        plant(copy, path, text)
    found = " ".join(lint(copy).split())
    assert found.startswith("1 ")
    missed = [said for _, said in PACKAGES.values() if said not in found]
    assert not missed, found
    contracts = settings(copy)["contracts"]
    assert [contract["name"] for contract in contracts if f"{contract['name']} BROKEN" not in found] == []
    assert not any(contract.get("ignore_imports") for contract in contracts if contract["type"] == "acyclic_siblings")


def test_files_that_are_no_package_are_looked_at(tree: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tree, tmp_path / "copy")
    for path, text in FILES.items():
        plant(copy, path, text)
    found = [*arrows.forbidden(copy), *arrows.tests_imported(copy)]
    assert {problem.partition(":")[0] for problem in found} == set(FILES), found
    planted = {path for pattern in arrows.ALLOWED for path in copy.glob(pattern)} & {copy / path for path in FILES}
    assert [pattern for pattern in arrows.ALLOWED if not planted.intersection(copy.glob(pattern))] == []


# What scripts/check runs, in its order, each by words that are in no other's command.
STEPS = ["ruff format", "ruff check", "arrows.py", "lint-imports", "mypy", "mypy --python-version 3.10 components",
         "mypy cloud/functions", "scripts/docs.py", "cloud/generate.py", "cfn-lint"]  # fmt: skip


@pytest.mark.parametrize("failing", [None, *STEPS])
def test_whatever_finds_a_fault_fails_the_check(tmp_path: Path, failing: str | None) -> None:
    """The script itself, with stand-ins for what it runs: each writes down its words, and one of them fails."""
    for folder in ("scripts", "cloud", ".venv/bin"):
        (tmp_path / folder).mkdir(parents=True)
    shutil.copy(ROOT / "scripts" / "check", tmp_path / "scripts")
    shutil.copy(ROOT / "cloud" / "template.yaml", tmp_path / "cloud")
    programs = [tmp_path / "scripts" / "setup"]
    programs += [tmp_path / ".venv" / "bin" / name for name in ("python", "ruff", "mypy", "cfn-lint")]
    number = STEPS.index(failing) + 1 if failing else 0
    for program in programs[1:]:
        program.write_text(f'#!/bin/sh\necho "{program.name} $*" >> ran\n[ "$(wc -l < ran)" -ne {number} ]\n')
    programs[0].write_text("#!/bin/sh\n")
    for program in programs:
        program.chmod(0o755)
    done = subprocess.run([tmp_path / "scripts" / "check"], cwd="/", capture_output=True, timeout=20)
    assert (done.returncode != 0) == (failing is not None), done.stderr
    ran = (tmp_path / "ran").read_text().splitlines()
    assert len(ran) == (number or len(STEPS))
    for step, command in zip(STEPS, ran, strict=False):
        assert all(word in command for word in step.split()), (step, command)


def test_the_contracts_know_every_package(tree: Path) -> None:
    assert list(arrows.unknown_packages(tree)) == []
    for folder in ("components/tank_level", "scripts/more"):
        (tree / folder).mkdir()
        (tree / folder / "__init__.py").touch()
    assert [problem.split()[-1] for problem in arrows.unknown_packages(tree)] == ["tank_level", "more"]

"""Every recipe on both nuclei, and every Config beside its recipe."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from localdev.core import Profile, check_recipe
from support import ROOT

RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("profile", list(Profile))
@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_both_nuclei_accept_the_recipe(path: Path, profile: Profile) -> None:
    raw = path.read_bytes()
    assert check_recipe(yaml.safe_load(raw), raw, profile) == []


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_least_privilege(path: Path) -> None:
    recipe = yaml.safe_load(path.read_bytes())
    defaults = recipe.get("ComponentConfiguration", {}).get("DefaultConfiguration", {})
    for service, policies in defaults.get("accessControl", {}).items():
        for name, policy in policies.items():
            assert name.startswith(recipe["ComponentName"]), f"{service}: policy ids are global to a core"
            assert policy["policyDescription"]
            assert "*" not in policy["operations"]
            assert "*" not in policy["resources"]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_shape_is_the_same_for_all(path: Path) -> None:
    recipe: dict[str, Any] = yaml.safe_load(path.read_bytes())
    assert recipe["ComponentName"] == path.stem
    assert recipe["ComponentPublisher"] == "greengrass-edge-ml"
    (manifest,) = recipe["Manifests"]
    assert manifest["Platform"] == {"os": "linux", "runtime": "*"}
    assert manifest["Lifecycle"].keys() <= {"install", "run"}
    assert "run" in manifest["Lifecycle"]


def test_generated_documents_are_up_to_date() -> None:
    done = subprocess.run([sys.executable, "scripts/docs.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

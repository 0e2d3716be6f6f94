"""Every recipe on both nuclei, and every Config beside its recipe."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import docs
from localdev.core import Profile, check_recipe
from support import ROOT

RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("profile", list(Profile))
@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_both_nuclei_accept_the_recipe(path: Path, profile: Profile) -> None:
    raw = path.read_bytes()
    assert check_recipe(yaml.load(raw, yaml.CSafeLoader), raw, profile) == []


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_least_privilege(path: Path) -> None:
    recipe = yaml.load(path.read_bytes(), yaml.CSafeLoader)
    defaults = recipe.get("ComponentConfiguration", {}).get("DefaultConfiguration", {})
    for service, policies in defaults.get("accessControl", {}).items():
        for name, policy in policies.items():
            assert name.startswith(recipe["ComponentName"]), f"{service}: policy ids are global to a core"
            assert policy["policyDescription"]
            assert "*" not in policy["operations"]
            assert "*" not in policy["resources"]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_who_hears_local_messages_may_prove_it(path: Path) -> None:
    """In a policy id of its own: an upgrade leaves the lists of the others as a device has them."""
    recipe = yaml.load(path.read_bytes(), yaml.CSafeLoader)
    defaults = recipe.get("ComponentConfiguration", {}).get("DefaultConfiguration", {})
    policies = dict(defaults.get("accessControl", {}).get("aws.greengrass.ipc.pubsub", {}))
    echo = policies.pop(f"{path.stem}:pubsub:echo", None)
    assert (echo is not None) == any("SubscribeToTopic" in str(policy["operations"]) for policy in policies.values())
    if echo is not None:
        assert echo["resources"] == [f"edgeml/echo/{path.stem.removeprefix('edgeml.')}"]
        assert echo["operations"] == ["aws.greengrass#PublishToTopic", "aws.greengrass#SubscribeToTopic"]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_shape_is_the_same_for_all(path: Path) -> None:
    recipe: dict[str, Any] = yaml.load(path.read_bytes(), yaml.CSafeLoader)
    assert recipe["ComponentName"] == path.stem
    assert recipe["ComponentPublisher"] == "greengrass-edge-ml"
    (manifest,) = recipe["Manifests"]
    assert manifest["Platform"] == {"os": "linux", "runtime": "*"}
    assert manifest["Lifecycle"].keys() <= {"install", "run"}
    assert "run" in manifest["Lifecycle"]


def test_generated_documents_are_up_to_date() -> None:
    done = subprocess.run([sys.executable, "scripts/docs.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def step(**changes: Any) -> dict[str, Any]:
    return {"install": {"Script": "true", "Timeout": "900"} | changes, "run": {"Script": "true"}}


@pytest.mark.parametrize(
    ("recipe", "problem"),
    [
        pytest.param({"Manifests": [{"Lifecycle": step()}]}, None, id="as it should be"),
        pytest.param({"Manifests": [{"Lifecycle": {"run": "true"}}]}, None, id="a model"),
        pytest.param({"Manifests": [{"Lifecycle": step(Timeout=900)}]}, "install.Timeout must be", id="number"),
        pytest.param({"Manifests": [{"Lifecycle": step(Timeout="900s")}]}, "install.Timeout must be", id="unit"),
        pytest.param({"Manifests": [{"Lifecycle": {"install": "true"}}]}, "install.Timeout is missing", id="none"),
        pytest.param(
            {"Manifests": [{"Lifecycle": {"run": {"Script": "x", "Timeout": 5}}}]}, "run.Timeout must be", id="run"
        ),
        *(
            pytest.param(
                {"Manifests": [{"Lifecycle": {"run": {"Script": "x", "Setenv": {name: "x"}}}}]},
                f"run.Setenv.{name} never arrives",
                id=name,
            )
            for name in ("PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "PERL5LIB", "RUBYLIB", "PATH", "HOME")
        ),
        pytest.param(
            {"Manifests": [{"Lifecycle": step() | {"Setenv": {"LD_PRELOAD": "x"}}}]},
            "Lifecycle.Setenv.LD_PRELOAD never arrives",
            id="for all steps",
        ),
        pytest.param(
            {"Lifecycle": {"install": {"Setenv": {"PYTHONPATH": "x"}, "Timeout": "1"}}, "Manifests": [{}]},
            "install.Setenv.PYTHONPATH never arrives",
            id="global lifecycle",
        ),
        pytest.param(
            {"Manifests": [{"Lifecycle": {"run": {"Script": "x", "Setenv": {"GST_PLUGIN_PATH": "x"}}}}]},
            None,
            id="kept",
        ),
        *(
            pytest.param(
                {"ComponentDependencies": {"x.Y": {"VersionRequirement": "*", **kind}}, "Manifests": [{}]},
                "x.Y must be a SOFT dependency",
                id=f"dependency {kind}",
            )
            for kind in ({}, {"DependencyType": "HARD"})
        ),
    ],
)
def test_what_both_nuclei_take_and_do_not_do_as_meant_is_refused(recipe: dict[str, Any], problem: str | None) -> None:
    found = list(docs.misunderstood(recipe))
    assert [text for text in found if problem is None or not text.startswith(problem)] == []
    assert bool(found) is (problem is not None)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_our_recipes_are_understood(path: Path) -> None:
    assert docs.recipe_problems(path) == []


def test_a_table_says_what_leaving_a_group_out_means() -> None:
    from inferencer.config import Config

    table = {key: default for key, _, default, _ in docs.rows(Config)}
    assert table["pipelines.<name>.iot_core.enabled"] == "`true`, `false` where `iot_core` is left out"
    assert table["pipelines.<name>.local.enabled"] == "`true`"

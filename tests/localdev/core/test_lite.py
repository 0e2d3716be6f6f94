"""What each profile refuses in a recipe, and why."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from localdev.core import Profile, check_recipe
from localdev.core.lite import LITE_RECIPE_BYTES

GOOD: dict[str, Any] = {
    "RecipeFormatVersion": "2020-01-25",
    "ComponentName": "test.Component",
    "ComponentVersion": "1.0.0",
    "ComponentDescription": "a component",
    "ComponentConfiguration": {
        "DefaultConfiguration": {
            "rate": 0.5,
            "accessControl": {
                "aws.greengrass.ipc.pubsub": {
                    "test.Component:1": {"operations": ["aws.greengrass#PublishToTopic"], "resources": ["a/*"]}
                }
            },
        }
    },
    "ComponentDependencies": {
        "aws.greengrass.TokenExchangeService": {"VersionRequirement": "^2.0.0", "DependencyType": "HARD"}
    },
    "Manifests": [
        {
            "Platform": {"os": "linux", "runtime": "*"},
            "Lifecycle": {
                "Setenv": {"WORK": "{work:path}"},
                "install": {"Script": "sh {artifacts:decompressedPath}/x/install.sh", "Timeout": 600},
                "run": {"Script": "run --rate {configuration:/rate}", "Setenv": {"THING": "{iot:thingName}"}},
            },
            "Artifacts": [{"Uri": "s3://BUCKET_NAME/x.zip", "Unarchive": "ZIP", "Permission": {"Read": "OWNER"}}],
        }
    ],
}


def check(change: Callable[[dict[str, Any]], object], profile: str) -> list[str]:
    recipe = copy.deepcopy(GOOD)
    change(recipe)
    raw = yaml.safe_dump(recipe).encode()
    return check_recipe(recipe, raw, profile)


def config(recipe: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = recipe["ComponentConfiguration"]["DefaultConfiguration"]
    return found


def lifecycle(recipe: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = recipe["Manifests"][0]["Lifecycle"]
    return found


def rename(mapping: dict[str, Any], old: str, new: str) -> None:
    mapping[new] = mapping.pop(old)


def policies(recipe: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = config(recipe)["accessControl"]["aws.greengrass.ipc.pubsub"]
    return found


@pytest.mark.parametrize("profile", list(Profile))
def test_a_good_recipe_passes_both(profile: Profile) -> None:
    assert check(lambda recipe: None, profile) == []


def test_a_timeout_may_be_a_variable() -> None:
    assert check(lambda recipe: lifecycle(recipe)["install"].update(Timeout="{configuration:/rate}"), "java") == []


LITE_ONLY: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "size": (lambda r: config(r).update(pad={str(n): "x" * 400 for n in range(20)}), "Lite reads at most 8000"),
    "key Run": (lambda r: rename(lifecycle(r), "run", "Run"), "Run must be written run"),
    "key setenv": (lambda r: rename(lifecycle(r), "Setenv", "setenv"), "setenv must be written Setenv"),
    "key URI": (lambda r: rename(r["Manifests"][0]["Artifacts"][0], "Uri", "URI"), "URI must be written Uri"),
    "key script": (lambda r: rename(lifecycle(r)["run"], "Script", "script"), "script must be written Script"),
    "key lifecycle": (lambda r: rename(r["Manifests"][0], "Lifecycle", "lifecycle"), "must be written Lifecycle"),
    "no runtime": (lambda r: r["Manifests"][0]["Platform"].pop("runtime"), 'runtime must be "*"'),
    "os": (lambda r: r["Manifests"][0]["Platform"].update(os="/linux|darwin/"), "no regular expressions"),
    "no description": (lambda r: r.pop("ComponentDescription"), "ComponentDescription is missing"),
    "type": (lambda r: r.update(ComponentType="aws.greengrass.lambda"), "aws.greengrass.lambda is not supported"),
    "startup": (lambda r: lifecycle(r).update(startup="x"), "startup is broken"),
    "shutdown": (lambda r: lifecycle(r).update(shutdown="x"), "shutdown is not run"),
    "recover": (lambda r: lifecycle(r).update(recover="x"), "recover is not run"),
    "bootstrap": (lambda r: lifecycle(r).update(bootstrap="x"), "bootstrap reboots"),
    "skipif": (lambda r: lifecycle(r)["install"].update(Skipif="onpath sh"), "Skipif is ignored"),
    "timeout variable": (
        lambda r: lifecycle(r).update(install={"Script": "x", "Timeout": "{configuration:/rate}"}),
        "no variable",
    ),
    "no artifacts": (lambda r: r["Manifests"][0].pop("Artifacts", None), "Artifacts is missing"),
    "install only": (lambda r: lifecycle(r).pop("run"), "install without run hangs"),
    "shell variable": (lambda r: lifecycle(r).update(run="echo ${HOME}"), "every { starts a variable"),
    "brace group": (lambda r: lifecycle(r).update(run="{ echo; }"), "every { starts a variable"),
    "open brace": (lambda r: lifecycle(r).update(run="echo {work:path"), "every { starts a variable"),
    "long variable": (lambda r: lifecycle(r).update(run="{" + "x" * 257 + "}"), "variable of 257 bytes"),
    "absent value": (lambda r: lifecycle(r).update(run="echo {configuration:/x}"), "not in DefaultConfiguration"),
    "absent in Setenv": (
        lambda r: lifecycle(r)["run"]["Setenv"].update(X="{configuration:/x}"),
        "run.Setenv.X: {configuration:/x} is not in DefaultConfiguration",
    ),
    "dependency's variable": (
        lambda r: lifecycle(r).update(run="{aws.greengrass.TokenExchangeService:configuration:/port}"),
        "refuses a dependency's variables",
    ),
    "long script": (lambda r: lifecycle(r).update(run="x" * 10_001), "script of 10001 bytes"),
    "leaf": (lambda r: config(r).update(leaf="x" * 1_023), "/leaf: a leaf of 1025 bytes, at most 1024"),
    "list": (lambda r: config(r).update(deep={"list": list(range(300))}), "/deep/list: a leaf of"),
    "children": (lambda r: config(r).update(many={f"k{n}": n for n in range(65)}), "/many: 65 children, at most 64"),
    "policy size": (
        lambda r: policies(r).update(
            {str(n): {"operations": ["*"], "resources": ["r" * 900]} for n in range(5)},
        ),
        "at most 4096",
    ),
}


@pytest.mark.parametrize("name", LITE_ONLY)
def test_lite_refuses_what_java_takes(name: str) -> None:
    change, reason = LITE_ONLY[name]
    assert [problem for problem in check(change, "lite") if reason in problem], check(change, "lite")
    assert check(change, "java") == []


BOTH: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "format": (lambda r: r.update(RecipeFormatVersion="2020-01-26"), "RecipeFormatVersion"),
    "name": (lambda r: r.update(ComponentName="a b"), "ComponentName 'a b'"),
    "version": (lambda r: r.update(ComponentVersion="NEXT_PATCH"), "is no semantic version"),
    "no manifests": (lambda r: r.update(Manifests=[]), "Manifests must be a list"),
    "null manifest": (lambda r: r.update(Manifests=[None]), "must not have empty entries"),
    "list for mapping": (lambda r: r.update(ComponentDependencies=["a"]), "ComponentDependencies must be a mapping"),
    "script for lifecycle": (lambda r: r["Manifests"][0].update(Lifecycle="run"), "Lifecycle must be a mapping"),
    "list for script": (lambda r: lifecycle(r).update(run=["a"]), "run must be a script or a mapping"),
    "platform": (lambda r: r["Manifests"][0]["Platform"].update(os="windows"), "no manifest fits"),
    "range": (
        lambda r: r["ComponentDependencies"].update({"x": {"VersionRequirement": "latest"}}),
        "ComponentDependencies.x: 'latest' is no version range",
    ),
    "uri": (lambda r: r["Manifests"][0]["Artifacts"][0].pop("Uri"), "an artifact has no Uri"),
    "timeout": (lambda r: lifecycle(r)["install"].update(Timeout="soon"), "'soon' is no number of seconds"),
    "question mark": (lambda r: policies(r).update(q={"operations": ["*"], "resources": ["a?"]}), "a?"),
    "escape": (lambda r: policies(r).update(q={"operations": ["*"], "resources": ["${x}"]}), "unknown escape"),
    "opertaions": (lambda r: policies(r).update(q={"opertaions": ["*"], "resources": ["a"]}), "no operations"),
    "operation": (lambda r: policies(r).update(q={"operations": ["Publish"], "resources": ["a"]}), "['Publish']"),
    "service": (lambda r: config(r)["accessControl"].update({"aws.greengrass.pubsub": {}}), "is no service"),
}


@pytest.mark.parametrize("profile", list(Profile))
@pytest.mark.parametrize("name", BOTH)
def test_both_refuse(name: str, profile: Profile) -> None:
    change, reason = BOTH[name]
    assert [problem for problem in check(change, profile) if reason in problem], check(change, profile)


def paths(node: Any, prefix: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where every value of a document lies."""
    children = list(node.items()) if isinstance(node, dict) else list(enumerate(node)) if isinstance(node, list) else []
    return [prefix, *(path for key, child in children for path in paths(child, (*prefix, key)))]


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(paths(GOOD)[1:]),
    st.one_of(st.integers(), st.text(max_size=3), st.sampled_from([None, [], {}, [None], {"": 1}, True, 0.5])),
)
def test_no_document_crashes_the_check(path: tuple[Any, ...], value: Any) -> None:
    recipe = copy.deepcopy(GOOD)
    node: Any = recipe
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    for profile in Profile:
        assert all(isinstance(problem, str) for problem in check_recipe(recipe, b"", profile))


def test_a_recipe_of_exactly_the_size_passes() -> None:
    raw = yaml.safe_dump(GOOD).encode()
    assert check_recipe(GOOD, raw.ljust(LITE_RECIPE_BYTES), "lite") == []
    assert check_recipe(GOOD, raw.ljust(LITE_RECIPE_BYTES + 1), "lite")


def test_a_global_lifecycle_is_checked_as_well() -> None:
    def move(recipe: dict[str, Any]) -> None:
        recipe["Lifecycle"] = {"linux": {"run": "echo ${HOME}"}}
        del recipe["Manifests"][0]["Lifecycle"]

    assert "every { starts a variable" in " ".join(check(move, "lite"))
    assert check(move, "java") == []

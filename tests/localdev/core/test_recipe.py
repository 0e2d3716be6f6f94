import platform
from typing import Any

import pytest

from localdev.core.profiles import Profile
from localdev.core.recipe import RecipeError, interpret, parse, steps

YAML = b"""
RecipeFormatVersion: 2020-01-25
ComponentName: test.Component
ComponentVersion: 1.0.0
ComponentConfiguration:
  DefaultConfiguration: {number: 5, rate: 0.5, flag: true, word: yes, day: 2020-01-25, empty: null}
Manifests: [{Platform: {os: linux}}]
"""


def recipe(*manifests: Any, **top: Any) -> dict[str, Any]:
    return {"ComponentName": "test.Component", "ComponentVersion": "1.0.0", "Manifests": list(manifests), **top}


def test_java_keeps_numbers_and_booleans_and_knows_no_dates() -> None:
    document = parse(YAML, ".yaml", Profile.JAVA)
    assert document["RecipeFormatVersion"] == "2020-01-25"
    assert document["ComponentConfiguration"]["DefaultConfiguration"] == {
        "number": 5,
        "rate": 0.5,
        "flag": True,
        "word": "yes",
        "day": "2020-01-25",
        "empty": None,
    }


def test_lite_makes_every_scalar_of_yaml_a_string() -> None:
    defaults = parse(YAML, ".yaml", Profile.LITE)["ComponentConfiguration"]["DefaultConfiguration"]
    assert set(map(type, defaults.values())) == {str}


DOUBLED = [b"a0: &a0 [1]\n", *(b"a%d: &a%d [%s]\n" % (n, n, b",".join([b"*a%d" % (n - 1)] * 9)) for n in range(1, 30))]
UNREADABLE = {
    "a mapping without end": (b"{", ".json"),
    "no mapping": (b"[1]", ".json"),
    "deep JSON": (b"[" * 100_000, ".json"),
    "a list without end": (b"a: [", ".yaml"),
    "nothing": (b"", ".yaml"),
    "no text": (b"\xff", ".yaml"),
    "deep lists": (b"[" * 100_000 + b"]" * 100_000, ".yaml"),
    "deep lists without end": (b"[" * 100_000, ".yaml"),
    "deep mappings": (b"{a: " * 100_000, ".yaml"),
    "lists in themselves": (b"a: &a [*a, *a]", ".yaml"),
    "mappings in themselves": (b"a: &a {x: *a, y: *a}", ".yaml"),
    "lists nine times in the next": (b"".join(DOUBLED), ".yaml"),
    "JSON a level too deep": (b'{"a":' * 200 + b"1" + b"}" * 200, ".json"),
    "lists a level too deep": (b"a: " + b"[" * 199 + b"1" + b"]" * 199, ".yaml"),
    "deep blocks": (b"- " * 100_000, ".yaml"),
}


@pytest.mark.parametrize("profile", Profile)
@pytest.mark.parametrize("what", UNREADABLE)
def test_what_cannot_be_parsed(what: str, profile: Profile) -> None:
    raw, suffix = UNREADABLE[what]
    with pytest.raises(RecipeError, match=r"^here: "):
        parse(raw, suffix, profile, "here")


@pytest.mark.parametrize("profile", Profile)
def test_what_is_deep_enough_for_all(profile: Profile) -> None:
    assert parse(b'{"a":' * 199 + b"1" + b"}" * 199, ".json", profile)
    assert parse(b"a: " + b"[" * 198 + b"1" + b"]" * 198, ".yaml", profile)


def test_java_reads_keys_without_case() -> None:
    document = {
        "componentname": "test.Component",
        "COMPONENTVERSION": "1.0.0",
        "manifests": [
            {
                "PLATFORM": {"OS": "linux"},
                "artifacts": [{"URI": "s3://b/a.zip", "unarchive": "zip", "permission": {"READ": "all"}}],
                "lifecycle": {"RUN": {"SCRIPT": "x", "TIMEOUT": "5"}},
            }
        ],
    }
    found = interpret(document, Profile.JAVA)
    assert (found.artifacts[0].uri, found.artifacts[0].unarchive, found.artifacts[0].read) == (
        "s3://b/a.zip",
        True,
        "ALL",
    )
    step = steps(found.lifecycle, Profile.JAVA)["run"]
    assert (step.key, step.script, step.timeout) == ("RUN.SCRIPT", "x", 5.0)


@pytest.mark.parametrize(
    ("wanted", "java", "lite"),
    [
        ({"os": "linux", "runtime": "*"}, True, True),
        ({"os": "linux"}, True, False),
        ({"os": "linux", "runtime": "aws_nucleus_lite"}, False, True),
        ({}, True, False),
        ({"os": "all", "runtime": "*"}, True, True),
        ({"os": "/linux|darwin/"}, True, False),
        ({"os": "/lin/"}, False, False),
        ({"os": "windows"}, False, False),
        ({"os": "linux", "architecture": "none"}, False, False),
        ({"os": "linux", "special": "x"}, False, False),
        ({"os": None, "runtime": None}, True, True),
    ],
)
def test_which_platforms_fit(wanted: dict[str, Any], java: bool, lite: bool) -> None:
    for profile, fits in ((Profile.JAVA, java), (Profile.LITE, lite)):
        if fits:
            interpret(recipe({"Platform": wanted}), profile)
        else:
            with pytest.raises(RecipeError, match="no manifest fits"):
                interpret(recipe({"Platform": wanted}), profile)


def test_the_first_manifest_that_fits_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    manifests = [
        {"Platform": {"os": "linux", "architecture": "aarch64"}, "Lifecycle": {"run": "arm"}},
        {"Platform": {"os": "linux"}, "Lifecycle": {"run": "any"}},
        {"Lifecycle": {"run": "last"}},
    ]
    for machine, script in (("aarch64", "arm"), ("x86_64", "any")):
        monkeypatch.setattr(platform, "machine", lambda machine=machine: machine)
        assert interpret(recipe(*manifests), Profile.JAVA).lifecycle == {"run": script}


@pytest.mark.parametrize(
    ("selections", "script"),
    [([], "linux"), (["special"], "special"), (["absent"], "all"), (["absent", "linux"], "linux")],
)
def test_a_global_lifecycle_is_filtered_by_selections(selections: list[str], script: str) -> None:
    shared = {"run": {"linux": {"Script": "linux"}, "special": {"Script": "special"}, "all": {"Script": "all"}}}
    manifest = {"Platform": {"os": "linux"}, "Selections": selections}
    found = interpret(recipe(manifest, Lifecycle=shared), Profile.JAVA)
    assert steps(found.lifecycle, Profile.JAVA)["run"].script == script


def test_a_manifests_lifecycle_replaces_the_global_one() -> None:
    found = interpret(
        recipe({"Platform": {"os": "linux"}, "Lifecycle": {"run": "own"}}, Lifecycle={"install": "global"}),
        Profile.JAVA,
    )
    assert found.lifecycle == {"run": "own"}


def test_setenv_of_a_step_overrides_the_shared_one() -> None:
    found = steps({"Setenv": {"A": 1, "B": True}, "run": {"Script": "x", "Setenv": {"A": "own"}}}, Profile.LITE)
    assert found["run"].setenv == {"A": "own", "B": "true"}


def test_default_timeouts() -> None:
    found = steps(dict.fromkeys(("install", "run", "shutdown", "recover"), "x"), Profile.JAVA)
    assert {name: step.timeout for name, step in found.items()} == {
        "install": 120.0,
        "run": None,
        "shutdown": 15.0,
        "recover": 60.0,
    }

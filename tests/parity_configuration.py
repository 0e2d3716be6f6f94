"""What a parity run asks of configuration: reads, changes, and who is told of them."""

from collections.abc import Callable
from functools import partial
from typing import Any

from parity_support import (
    Changes,
    Named,
    Operation,
    Probe,
    changes,
    configured,
    updated,
)


def _without_policies(answer: Any) -> Any:
    return {key: value for key, value in answer.value.items() if key != "accessControl"}


def _configured_at(path: list[str]) -> Operation:
    return lambda probe: configured(probe, *path)


def _first_keys(probe: Probe, name: str) -> list[str]:
    return sorted(configured(probe, component_name=name).value)[:5]


def reads() -> Named:
    yield "config whole", lambda probe: _without_policies(configured(probe))
    yield "config no key_path", lambda probe: _without_policies(probe.ipc.get_configuration())
    yield "config has accessControl", lambda probe: "accessControl" in configured(probe).value
    paths = {
        "container": ["deep"],
        "leaf": ["text"],
        "leaf number": ["number"],
        "leaf bool": ["flag"],
        "leaf list": ["list"],
        "nested leaf": ["deep", "inner", "x"],
        "missing": ["nope"],
        "below leaf": ["text", "x"],
    }
    for name, path in paths.items():
        yield f"config {name}", _configured_at(path)
    yield "config other component", lambda probe: list(configured(probe, component_name="test.Observer").value)[:3]
    yield "config missing component", lambda probe: configured(probe, component_name="no.such")
    for kind in ("Nucleus", "NucleusLite"):
        name = f"aws.greengrass.{kind}"
        yield f"config {kind.lower()}", partial(_first_keys, name=name)


def updates() -> Named:
    def merged(path: list[str], value: Any, show: Callable[[Probe], Any], seconds: float = 0.0) -> Operation:
        def run(probe: Probe) -> Any:
            updated(probe, path, value, seconds)
            return show(probe)

        return run

    def value(*path: str) -> Callable[[Probe], Any]:
        return lambda probe: configured(probe, *path).value

    def length(key: str) -> Callable[[Probe], Any]:
        return lambda probe: len(configured(probe, key).value[key])

    def both(probe: Probe) -> Any:
        return {key: found for key, found in configured(probe).value.items() if key in ("deep", "added")}

    yield "update merge", merged([], {"deep": {"new": 7}, "added": {"a": [1, "b", True, None]}}, both)
    yield "update key path", merged(["deep", "inner"], {"x": 2}, value("deep"))
    yield "update new path", merged(["made", "here"], {"x": 2}, value("made"))
    yield "update older timestamp", merged(["deep"], {"new": 99}, value("deep", "new"), -3600)

    def twice(probe: Probe) -> Any:
        updated(probe, ["fut"], {"v": 1}, 3600)
        return merged(["fut"], {"v": 2}, value("fut"))(probe)

    yield "update future timestamp then now", twice
    yield "update leaf over map", merged([], {"made": 5}, value("made"))
    yield "update map over leaf", merged([], {"text": {"a": 1}}, value("text"))
    yield "update null", merged([], {"number": None}, value("number"))
    yield "update accessControl", lambda probe: updated(probe, ["accessControl"], {"x": 1})
    nots = {"nots": 1}
    yield "update no timestamp", lambda probe: probe.ipc.update_configuration(key_path=[], value_to_merge=nots)
    yield "update scalar", lambda probe: updated(probe, ["flag"], "x")
    yield "update leaf of 1000 B", merged([], {"long": "x" * 1000}, length("long"))
    yield "update leaf of 1100 B", merged([], {"long2": "x" * 1100}, length("long2"))
    many = {"many": {f"k{number}": number for number in range(70)}}
    yield "update 70 children", merged([], many, lambda probe: len(configured(probe, "many").value))


def change_events() -> Named:
    two = {"deep": {"a1": "1", "a2": "1"}}
    yield "sub config whole, 2 leaves", lambda probe: changes(probe, [], two, [])
    yield "sub config container", lambda probe: changes(probe, ["deep"], {"deep": {"a3": "1"}}, [])
    yield "sub config leaf", lambda probe: changes(probe, ["deep", "a3"], {"a3": "1x"}, ["deep"])
    yield "sub config unchanged value", lambda probe: changes(probe, ["deep"], {"a3": "1x"}, ["deep"])
    yield "sub config sibling", lambda probe: changes(probe, ["deep", "inner"], {"a3": "1y"}, ["deep"])
    yield "sub config missing key", lambda probe: Changes(probe, ["nope"]).response
    yield "sub config other component", lambda probe: Changes(probe, [], component_name="test.Observer").response

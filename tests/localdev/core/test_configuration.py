"""Configuration operations with the real client, and the store's merge rules."""

import datetime
import queue
from typing import Any

import pytest
from awsiot.greengrasscoreipc import model
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core_support import Connect
from localdev.core import LocalCore
from localdev.core.config_store import ConfigStore, build, fill, merge, plain, reset

quick = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=3), st.lists(st.integers(), max_size=2))
TREES: st.SearchStrategy[dict[str, Any]] = st.recursive(
    st.dictionaries(st.sampled_from("abc"), SCALARS, max_size=3),
    lambda children: st.dictionaries(st.sampled_from("abc"), st.one_of(SCALARS, children), max_size=3),
    max_leaves=8,
)


def now(seconds: float = 0.0) -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)


def deep_merge(old: Any, new: Any) -> Any:
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return new
    return {key: deep_merge(old.get(key), new[key]) if key in new else old[key] for key in {**old, **new}}


@quick
@given(TREES, TREES)
def test_a_newer_merge_wins_everywhere(old: dict[str, Any], new: dict[str, Any]) -> None:
    tree = build(old, 1.0)
    merge(tree, new, 2.0)
    assert plain(tree) == deep_merge(old, new)


@quick
@given(TREES, TREES)
def test_defaults_never_overwrite(old: dict[str, Any], defaults: dict[str, Any]) -> None:
    tree = build(old, 1.0)
    fill(tree, defaults)
    assert plain(tree) == deep_merge(defaults, old)


@pytest.mark.parametrize(
    ("pointer", "left"),
    [
        ("", {}),
        ("/a", {"x/y": {"~": 1}}),
        ("/A/b", {"a": {"c": 2}, "x/y": {"~": 1}}),
        ("/x~1y/~0", {"a": {"b": 1, "c": 2}, "x/y": {}}),
        ("/absent/key", {"a": {"b": 1, "c": 2}, "x/y": {"~": 1}}),
    ],
)
def test_reset_removes_what_a_pointer_names(pointer: str, left: dict[str, Any]) -> None:
    tree = build({"a": {"b": 1, "c": 2}, "x/y": {"~": 1}}, 1.0)
    reset(tree, pointer)
    assert plain(tree) == left


def test_a_deployment_resets_then_fills_then_merges() -> None:
    store = ConfigStore()
    store.replace("c", store.proposal("c", {"keep": 1, "drop": 1, "same": "old"}, {}, 10.0))
    change = {"RESET": ["/drop"], "MERGE": {"new": {"deep": True}, "keep": 5}}
    tree = store.proposal("c", {"keep": 2, "drop": 2, "same": "new", "added": 2}, change, 20.0)
    assert plain(tree) == {"keep": 5, "drop": 2, "same": "old", "added": 2, "new": {"deep": True}}


def test_get_configuration(core: LocalCore, connect: Connect) -> None:
    client = connect("test.C", {})
    client.update_configuration(
        key_path=[], timestamp=now(), value_to_merge={"Deep": {"number": 5, "list": [1, {"x": 2}], "text": "t"}}
    )
    assert client.get_configuration(key_path=["Deep"]).value == {"number": 5, "list": [1, {"x": 2}], "text": "t"}
    assert client.get_configuration(key_path=["deep", "NUMBER"]).value == {"number": 5}
    assert client.get_configuration(key_path=["Deep", "list"]).value == {"list": [1, {"x": 2}]}
    assert client.get_configuration(key_path=[]).component_name == "test.C"
    other = connect("test.Other", {})
    assert other.get_configuration(component_name="test.C", key_path=["Deep", "text"]).value == {"text": "t"}
    assert isinstance(client.get_configuration(key_path=["Deep", "number"]).value["number"], float)
    assert core.configuration("test.C")["Deep"]["number"] == 5


@pytest.mark.parametrize(("component", "path"), [("test.C", ["absent"]), ("test.Absent", []), ("test.C", ["a", "b"])])
def test_an_absent_key_is_not_found(connect: Connect, component: str, path: list[str]) -> None:
    client = connect("test.C", {})
    client.update_configuration(key_path=[], timestamp=now(), value_to_merge={"a": 1})
    with pytest.raises(model.ResourceNotFoundError) as refused:
        client.get_configuration(component_name=component, key_path=path)
    assert "Key not found" in refused.value.message
    with pytest.raises(model.ResourceNotFoundError):
        client.subscribe_to_configuration_update(component_name=component, key_path=path, on_stream_event=print)


def test_an_older_write_fails_and_leaves_the_newer_leaf(connect: Connect) -> None:
    client = connect("test.C", {})
    client.update_configuration(key_path=["a"], timestamp=now(), value_to_merge={"x": 1})
    with pytest.raises(model.FailedUpdateConditionCheckError) as refused:
        client.update_configuration(key_path=["a"], timestamp=now(-60), value_to_merge={"x": 2, "y": 2})
    assert "older" in refused.value.message
    assert client.get_configuration(key_path=["a"]).value == {"x": 1, "y": 2}


def test_lite_ignores_an_older_write(connect_lite: Connect) -> None:
    client = connect_lite("test.C", {})
    client.update_configuration(key_path=["a"], timestamp=now(), value_to_merge={"x": 1})
    client.update_configuration(key_path=["a"], timestamp=now(-60), value_to_merge={"x": 2})
    assert client.get_configuration(key_path=["a"]).value == {"x": 1}


def test_a_misspelt_access_control_passes_and_ends_every_policy(connect: Connect) -> None:
    """Seen on a real nucleus: the name is compared exactly, the key is found without case."""
    client = connect("test.C")
    client.publish_to_topic(topic="a", publish_message=model.PublishMessage())
    client.update_configuration(key_path=["AccessControl"], timestamp=now(), value_to_merge={"x": 1})
    with pytest.raises(model.UnauthorizedError):
        client.publish_to_topic(topic="a", publish_message=model.PublishMessage())


def test_a_leaf_and_an_object_replace_each_other_in_java_whatever_their_times(connect: Connect) -> None:
    client = connect("test.C", {})
    client.update_configuration(key_path=[], timestamp=now(), value_to_merge={"leaf": 1, "map": {"x": 1}})
    client.update_configuration(key_path=["leaf"], timestamp=now(), value_to_merge={"a": 1})
    client.update_configuration(key_path=[], timestamp=now(), value_to_merge={"map": None})
    whole = client.get_configuration(key_path=[]).value
    assert (whole["leaf"], whole["map"]) == ({"a": 1}, None)
    with pytest.raises(model.ServiceError) as refused:
        client.update_configuration(key_path=["map", "y"], timestamp=now(), value_to_merge={"a": 1})
    assert refused.value.message == (
        "map in services.test.C.configuration is already a leaf, cannot become a container"
    )


def test_one_leaf_of_the_future_makes_every_later_update_above_it_fail_though_it_is_made(connect: Connect) -> None:
    client = connect("test.C", {})
    client.update_configuration(key_path=[], timestamp=now(), value_to_merge={"a": {"x": 1}})
    client.update_configuration(key_path=["a"], timestamp=now(3600), value_to_merge={"x": 2})
    with pytest.raises(model.FailedUpdateConditionCheckError):
        client.update_configuration(key_path=[], timestamp=now(), value_to_merge={"b": 5})
    assert client.get_configuration(key_path=["b"]).value == {"b": 5}


def test_lite_merges_no_object_over_a_value_and_no_long_leaf(connect_lite: Connect) -> None:
    client = connect_lite("test.C", {})
    client.update_configuration(key_path=[], timestamp=now(), value_to_merge={"leaf": 1, "map": {"x": 1}})
    for wrong in ({"leaf": {"a": 1}}, {"map": 5}, {"map": None}, {"long": "x" * 1100}, {"many": ["xxxxxxxxx"] * 100}):
        with pytest.raises(model.ServiceError):
            client.update_configuration(key_path=[], timestamp=now(), value_to_merge={"ok": 1, **wrong})
    assert client.get_configuration(key_path=[]).value == {"accessControl": {}, "leaf": 1, "map": {"x": 1}}
    client.update_configuration(key_path=["leaf"], timestamp=now(), value_to_merge=7)
    assert client.get_configuration(key_path=["leaf"]).value == {"leaf": 7}


@pytest.mark.parametrize(
    ("path", "value"), [(["accessControl"], {"x": 1}), ([], {"accessControl": {}}), (["accessControl", "a"], {"x": 1})]
)
def test_policies_cannot_be_written(connect: Connect, path: list[str], value: dict[str, Any]) -> None:
    with pytest.raises(model.InvalidArgumentsError) as refused:
        connect("test.C", {}).update_configuration(key_path=path, timestamp=now(), value_to_merge=value)
    assert "accessControl" in refused.value.message


def test_subscribers_hear_of_each_changed_leaf(connect: Connect) -> None:
    client, watcher = connect("test.C", {}), connect("test.Watcher", {})
    client.update_configuration(key_path=[], timestamp=now(), value_to_merge={"a": {"x": 1, "y": 1, "z": 1}, "b": 1})
    events: queue.Queue[Any] = queue.Queue()
    watcher.subscribe_to_configuration_update(component_name="test.C", key_path=["a"], on_stream_event=events.put)
    client.update_configuration(key_path=[], timestamp=now(), value_to_merge={"b": 2})
    client.update_configuration(key_path=["a"], timestamp=now(), value_to_merge={"x": 2, "y": 1, "n": {"new": 1}})
    heard = [events.get(timeout=5).configuration_update_event for _ in range(3)]
    assert [(event.component_name, event.key_path) for event in heard] == [
        ("test.C", ["a", "x"]),
        ("test.C", ["a", "n", "new"]),  # a new leaf: its creation, and its value
        ("test.C", ["a", "n", "new"]),
    ]
    assert events.empty()

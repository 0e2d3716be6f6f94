"""The configuration that scripts/deploy merges and resets: pointers, and histories of any kind."""

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from deployment.configuration import Update, outermost, resettable
from deployment.revision import Revision
from deployment.rollback import restored
from localdev.core.config_store import ConfigStore


@pytest.mark.parametrize(
    ("path", "pointer"),
    [
        (("a", "b"), "/a/b"),
        (("a", "0", "b"), "/a"),
        (("a", "b", "12"), "/a/b"),
        (("7",), ""),
        (("a", "01"), "/a/01"),
        (("a", ""), "/a"),
        (("a", "b" * 253), f"/a/{'b' * 253}"),
        (("a", "b" * 254), "/a"),
    ],
)
def test_what_devices_would_not_reset_is_reset_with_what_contains_it(path: tuple[str, ...], pointer: str) -> None:
    assert resettable(path) == pointer


def test_pointers_below_others_are_left_out() -> None:
    assert outermost(["/a/b", "/a", "/ab", "/a/b/c", "/c/d"]) == ("/a", "/ab", "/c/d")
    assert outermost(["/a", "", "/b"]) == ("",)


leaf = st.integers(0, 3) | st.just([1])
trees = st.recursive(
    st.dictionaries(st.sampled_from("xyz"), leaf, max_size=3),
    lambda below: st.dictionaries(st.sampled_from("ab0"), below | leaf, max_size=3),
    max_leaves=6,
)
pointers = st.sampled_from(["", "/a", "/a/b", "/a/x", "/b", "/b/a/x", "/x"])
updates = st.builds(Update, trees, st.lists(pointers, max_size=2).map(tuple))
INSTALLED = {"a": {"x": 9, "b": {"y": 9}}, "z": 9}  # a recipe's defaults; their kinds are not changed below


def fits(values: Any, defaults: Any) -> bool:
    """Whether what is an object in the defaults is one here, and the other way round."""
    if not isinstance(values, dict) or not isinstance(defaults, dict):
        return isinstance(values, dict) == isinstance(defaults, dict)
    return all(fits(values[key], defaults[key]) for key in values.keys() & defaults.keys())


@given(
    history=st.lists(updates.filter(lambda u: fits(u.merge, INSTALLED)) | st.none(), min_size=2, max_size=6),
    index=st.integers(0, 5),
    missed=st.sets(st.integers(0, 5)),
)
@example([Update({"b": [1]}), Update({}, ("/b/a/x",)), Update({}, ("",))], 1, set())
def test_any_history_can_be_gone_back_in(history: list[Update | None], index: int, missed: set[int]) -> None:
    """None: a deployment without the component. The device missed some of the deployments since `index`."""
    history[0], index = history[0] or Update(), index % len(history)
    revisions = [
        Revision("", components={"A": update.within({"componentVersion": "1.0.0"})} if update is not None else {})
        for update in history
    ]
    store, clock = ConfigStore(), iter(range(2, 100))

    def deploy(components: dict[str, dict[str, Any]]) -> None:
        if "A" not in components:
            return store.remove("A")
        update = Update.of(components["A"])
        assert all(resettable(tuple(p.split("/")[1:])) == p for p in update.reset)
        change = {"RESET": update.reset, "MERGE": update.merge}
        return store.replace("A", store.proposal("A", INSTALLED, change, float(next(clock))))

    for revision in revisions[: index + 1]:
        deploy(revision.components)
    was = store.snapshot("A")
    for later, revision in enumerate(revisions[index + 1 :]):
        if later not in missed:
            deploy(revision.components)
    deploy(restored(revisions, index))
    assert store.snapshot("A") == was

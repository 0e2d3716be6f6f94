import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from localdev.core.topics import TopicTrie, has_wildcard, mqtt_matches, split_levels

# A busy machine is no failure.
quick = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])

TOPICS = st.lists(st.sampled_from(["a", "b", ""]), min_size=1, max_size=5).map("/".join)
FILTERS = st.tuples(
    st.lists(st.sampled_from(["a", "b", "+", ""]), min_size=1, max_size=4), st.sampled_from([[], ["#"]])
).map(lambda parts: "/".join(parts[0] + parts[1]))


def fits(topic_filter: str, topic: str) -> bool:
    """The rules of local pub/sub for one filter, the plainest way."""
    wanted, levels = split_levels(topic_filter), split_levels(topic)
    if wanted and wanted[-1] == "#":
        head = wanted[:-1]
        return len(levels) > len(head) and all(want in ("+", level) for want, level in zip(head, levels, strict=False))
    return len(wanted) == len(levels) and all(want in ("+", level) for want, level in zip(wanted, levels, strict=True))


@quick
@given(st.lists(FILTERS, max_size=6), TOPICS)
def test_the_trie_finds_exactly_the_filters_that_match(filters: list[str], topic: str) -> None:
    trie: TopicTrie[int] = TopicTrie()
    for number, topic_filter in enumerate(filters):
        trie.add(topic_filter, number)
    expected = [number for number, topic_filter in enumerate(filters) if fits(topic_filter, topic)]
    assert sorted(trie.matches(topic)) == expected


@quick
@given(st.lists(FILTERS, min_size=1, max_size=6), TOPICS)
def test_removing_everything_leaves_an_empty_trie(filters: list[str], topic: str) -> None:
    trie: TopicTrie[int] = TopicTrie()
    for number, topic_filter in enumerate(filters):
        trie.add(topic_filter, number)
    for number, topic_filter in enumerate(filters):
        trie.remove(topic_filter, number)
    assert not list(trie.matches(topic))
    assert not trie


def test_trailing_empty_levels_do_not_count() -> None:
    trie: TopicTrie[str] = TopicTrie()
    trie.add("a/", "x")
    assert list(trie.matches("a")) == ["x"]
    assert list(trie.matches("/a")) == []


@pytest.mark.parametrize(
    ("topic_filter", "wildcard"),
    [("a/+/b", True), ("a/#", True), ("#", True), ("a+/b", False), ("a/#/b", False), ("a/b", False)],
)
def test_which_filters_have_a_wildcard(topic_filter: str, wildcard: bool) -> None:
    assert has_wildcard(topic_filter) is wildcard


@pytest.mark.parametrize(
    ("topic_filter", "topic", "matches"),
    [
        ("a/#", "a", True),
        ("a/#", "a/b/c", True),
        ("+/b", "a/b", True),
        ("+/b", "a/b/c", False),
        ("#", "$aws/x", False),
        ("$aws/#", "$aws/x", True),
        ("a/", "a", False),
    ],
)
def test_mqtt_filters(topic_filter: str, topic: str, matches: bool) -> None:
    assert mqtt_matches(topic_filter, topic) is matches

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from localdev.core.wildcard import PatternError, compile_mqtt, compile_standard

# A busy machine is no failure.
quick = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])


def glob(pattern: str, text: str) -> bool:
    """The plainest possible matcher of `*`, to compare with."""
    if not pattern:
        return not text
    if pattern[0] == "*":
        return any(glob(pattern[1:], text[skipped:]) for skipped in range(len(text) + 1))
    return bool(text) and pattern[0] == text[0] and glob(pattern[1:], text[1:])


def mqtt(pattern: list[str], levels: list[str]) -> bool:
    """The plainest possible matcher of MQTT filters, to compare with."""
    if pattern == ["#"]:
        return True
    if not pattern or not levels:
        return pattern == levels
    if pattern[0] == "+" or pattern[0] == levels[0]:
        return mqtt(pattern[1:], levels[1:]) or (pattern[1:] == ["#"] and not levels[1:])
    return False


@quick
@given(st.text("ab/*", max_size=8), st.text("ab/", max_size=8))
def test_standard_patterns_match_as_a_plain_glob(pattern: str, text: str) -> None:
    assert bool(compile_standard(pattern).fullmatch(text)) == glob(pattern, text)


@quick
@given(
    st.lists(st.sampled_from(["a", "b", "+", ""]), min_size=1, max_size=4), st.booleans(), st.text("ab/", max_size=7)
)
def test_mqtt_patterns_match_as_mqtt_filters(levels: list[str], rest: bool, topic: str) -> None:
    pattern = [*levels, "#"] if rest else levels
    assert bool(compile_mqtt("/".join(pattern)).fullmatch(topic)) == mqtt(pattern, topic.split("/"))


@quick
@given(st.text(st.characters(exclude_characters="*?", exclude_categories=["Cs"]).filter(lambda c: c != "$")))
def test_text_without_wildcards_matches_itself_alone(text: str) -> None:
    matcher = compile_standard(text)
    assert matcher.fullmatch(text)
    assert not matcher.fullmatch(text + "x")


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        ("test/*", "test/a/b", True),
        ("*", "", True),
        ("test/#", "test/#", True),
        ("test/#", "test/a", False),
        ("a/+/c", "a/b/c", False),
        ("a${*}b", "a*b", True),
        ("a${*}b", "axb", False),
        ("${$}{*}${?}", "${}?", True),
        ("$aws/things/*/jobs/*", "$aws/things/x/jobs/y/z", True),
        ("a.b", "axb", False),
        ("a*", "a\nb", True),
    ],
)
def test_standard_rules(pattern: str, text: str, matches: bool) -> None:
    assert bool(compile_standard(pattern).fullmatch(text)) is matches


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        ("test/topic/#", "test/topic/#", True),
        ("test/topic/#", "test/topic/x/y", True),
        ("test/topic/#", "test/topic", True),
        ("test/topic/#", "test/topics", False),
        ("a/+/c", "a/b/c", True),
        ("a/+/c", "a/b/b/c", False),
        ("a+/c", "ab/c", False),
        ("a#", "ab", False),
        ("#", "anything/at/all", True),
        ("a/*/+", "a/b/c/d", True),
    ],
)
def test_mqtt_rules(pattern: str, text: str, matches: bool) -> None:
    assert bool(compile_mqtt(pattern).fullmatch(text)) is matches


@pytest.mark.parametrize("pattern", ["a?", "${x}", "${}", "a${**}"])
@pytest.mark.parametrize("compile_pattern", [compile_standard, compile_mqtt])
def test_what_the_nucleus_refuses(pattern: str, compile_pattern: object) -> None:
    assert callable(compile_pattern)
    with pytest.raises(PatternError):
        compile_pattern(pattern)

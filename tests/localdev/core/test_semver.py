import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from localdev.core.semver import Version, VersionError, satisfies

# A busy machine is no failure.
quick = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize(
    ("requirement", "inside", "outside"),
    [
        ("1.2.3", ["1.2.3"], ["1.2.4", "1.2.3-rc.1"]),
        ("=1.2.3", ["1.2.3", "1.2.3+build"], ["1.2.2"]),
        ("^1.2.3", ["1.2.3", "1.9.0"], ["1.2.2", "2.0.0", "2.0.0-rc.1"]),
        ("^0.2.3", ["0.2.3", "0.2.9"], ["0.3.0"]),
        ("^0.0.3", ["0.0.3"], ["0.0.4"]),
        ("^1.2", ["1.2.0", "1.99.0"], ["1.1.9", "2.0.0"]),
        ("~1.2.3", ["1.2.3", "1.2.9"], ["1.3.0"]),
        ("~1", ["1.0.0", "1.9.0"], ["2.0.0"]),
        (">=1.0.0 <1.1.0", ["1.0.0", "1.0.9"], ["1.1.0", "0.9.9"]),
        (">= 1.0.0 < 2", ["1.5.0"], ["2.0.0"]),
        (">1.2", ["1.3.0"], ["1.2.9"]),
        ("<=1.2", ["1.2.9"], ["1.3.0"]),
        ("1.x", ["1.0.0", "1.9.9"], ["2.0.0"]),
        ("1.2.*", ["1.2.7"], ["1.3.0"]),
        ("*", ["0.0.0", "9.9.9"], ["1.0.0-rc.1"]),
        ("", ["1.0.0"], []),
        ("1.0.0 - 2.0.0", ["1.0.0", "2.0.0"], ["2.0.1"]),
        ("^1.0.0 || ^3.0.0", ["1.5.0", "3.1.0"], ["2.0.0"]),
        (">=1.0.0-rc.2", ["1.0.0-rc.10", "1.0.0"], ["1.0.0-rc.1", "1.1.0-rc.9"]),
    ],
)
def test_npm_ranges(requirement: str, inside: list[str], outside: list[str]) -> None:
    assert [version for version in inside if not satisfies(Version(version), requirement)] == []
    assert [version for version in outside if satisfies(Version(version), requirement)] == []


@pytest.mark.parametrize("requirement", ["banana", ">=1.0.0 <", "1.2.3.4", "^^1.0.0"])
def test_text_that_is_no_range(requirement: str) -> None:
    with pytest.raises(VersionError):
        satisfies(Version("1.0.0"), requirement)


@pytest.mark.parametrize("text", ["1.0", "NEXT_PATCH", "1.0.0.0", "v1.0.0", "1.0.1000000", "", "1.0.0-" + "a" * 64])
def test_text_that_is_no_version(text: str) -> None:
    with pytest.raises(VersionError):
        Version(text)


NUMBERS = st.tuples(*[st.integers(0, 20)] * 3)


@quick
@given(NUMBERS, NUMBERS)
def test_versions_are_ordered_by_number(first: tuple[int, ...], second: tuple[int, ...]) -> None:
    left, right = (Version(".".join(map(str, numbers))) for numbers in (first, second))
    assert (left < right) == (first < second)
    assert Version(f"{left}-rc.1") < left

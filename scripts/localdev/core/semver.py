"""Component versions and the npm ranges of VersionRequirement."""

import re
from functools import total_ordering
from typing import NamedTuple

_VERSION = re.compile(r"(\d{1,6})\.(\d{1,6})\.(\d{1,6})(?:-([0-9A-Za-z.-]+))?(?:\+[0-9A-Za-z.-]+)?")
_PARTIAL = re.compile(
    r"([~^]|[<>]=?|=)?v?(\d+|[xX*])(?:\.(\d+|[xX*]))?(?:\.(\d+|[xX*]))?(?:-([0-9A-Za-z.-]+))?(?:\+[0-9A-Za-z.-]+)?"
)
_SPACED = re.compile(r"([~^]|[<>]=?|=)\s+")


class VersionError(ValueError):
    """Text that is no version or no range."""


@total_ordering
class Version:
    """A semantic version; ordered as semver.org says."""

    def __init__(self, text: str) -> None:
        match = _VERSION.fullmatch(text)
        if not match or len(text) > 64:
            raise VersionError(f"{text!r} is no semantic version")
        self.text = text
        self.release = (int(match[1]), int(match[2]), int(match[3]))
        self.prerelease = match[4]

    def _key(self) -> tuple[object, ...]:
        if self.prerelease is None:
            return (self.release, 1)
        parts = self.prerelease.split(".")
        return (self.release, 0, *((0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Version) and self._key() == other._key()

    def __lt__(self, other: "Version") -> bool:
        return self._key() < other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"Version({self.text!r})"


class _Bound(NamedTuple):
    operator: str
    version: Version


def satisfies(version: Version, requirement: str) -> bool:
    """Whether a version is in an npm range. VersionError if the range cannot be read."""
    return any(_all_hold(version, _bounds(option)) for option in requirement.split("||"))


def _all_hold(version: Version, bounds: list[_Bound]) -> bool:
    for operator, bound in bounds:
        holds = {
            ">": version > bound,
            ">=": version >= bound,
            "<": version < bound,
            "<=": version <= bound,
            "=": version == bound,
        }
        if not holds[operator]:
            return False
    # npm: a pre-release is in a range only if a bound of the same release is a pre-release too.
    return version.prerelease is None or any(
        bound.version.prerelease and bound.version.release == version.release for bound in bounds
    )


def _bounds(option: str) -> list[_Bound]:
    hyphen = re.fullmatch(r"\s*(\S+)\s+-\s+(\S+)\s*", option)
    if hyphen:
        return _comparator(f">={hyphen[1]}") + _comparator(f"<={hyphen[2]}")
    comparators = _SPACED.sub(r"\1", option).split()
    return [bound for comparator in comparators for bound in _comparator(comparator)]


def _comparator(text: str) -> list[_Bound]:
    match = _PARTIAL.fullmatch(text)
    if not match:
        raise VersionError(f"{text!r} is no version range")
    operator, prerelease = match[1] or "=", match[5]
    numbers: list[int] = []
    for part in match.group(2, 3, 4):
        if part is None or part in "xX*":
            break
        numbers.append(int(part))
    low = _version(numbers, prerelease if len(numbers) == 3 else None)
    if not numbers:
        return []
    if operator == "^":
        fixed = next((index for index, number in enumerate(numbers) if number), len(numbers) - 1)
        return [_Bound(">=", low), _below(numbers[: fixed + 1])]
    if operator == "~":
        return [_Bound(">=", low), _below(numbers[:2])]
    if len(numbers) == 3 or operator in (">=", "<"):
        return [_Bound(operator, low)]
    upper = _below(numbers)
    return {"=": [_Bound(">=", low), upper], "<=": [upper], ">": [_Bound(">=", upper.version)]}[operator]


def _below(numbers: list[int]) -> _Bound:
    """Below the next release of the last number given."""
    return _Bound("<", _version([*numbers[:-1], numbers[-1] + 1], None))


def _version(numbers: list[int], prerelease: str | None) -> Version:
    release = ".".join(str(number) for number in [*numbers, 0, 0, 0][:3])
    return Version(f"{release}-{prerelease}" if prerelease else release)

"""Artifacts that carry wheels: the locks resolve for every machine that the README names, by the index's own list."""

import itertools
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import pytest
import requests
from packaging import tags
from packaging.tags import Tag
from packaging.utils import parse_wheel_filename

import build
from support import ROOT

LOCKS = sorted(ROOT.glob("components/*/requirements.lock"))
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_28_x86_64")
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
INDEX = "https://pypi.org/simple"
REQUIREMENT = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)", re.MULTILINE)


@pytest.mark.parametrize(
    ("platform", "first", "last", "count"),
    [
        ("manylinux_2_28_aarch64", "manylinux_2_28_aarch64", "manylinux2014_aarch64", 13),
        ("manylinux_2_17_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64", 2),
        ("manylinux_2_28_x86_64", "manylinux_2_28_x86_64", "manylinux1_x86_64", 27),
    ],
)
def test_older_platforms_serve_too(platform: str, first: str, last: str, count: int) -> None:
    found = build.compatible_platforms(platform)
    assert (found[0], found[-1], len(found)) == (first, last, count)


@pytest.mark.parametrize(
    "platform", ["aarch64", "manylinux_2_28_arm64", "manylinux_2_16_aarch64", "win_amd64", "x" * 50]
)
def test_a_wrong_platform_is_one_sentence(platform: str) -> None:
    with pytest.raises(SystemExit, match=r"^--wheels .*: expected manylinux_2_<glibc>_aarch64 or _x86_64, such as"):
        build.compatible_platforms(platform)


@pytest.mark.parametrize(
    ("marker", "holding", "kept"),
    [
        ("python_full_version < '3.11'", ["3.10"], ""),
        ("python_full_version == '3.11.*'", ["3.11"], ""),
        ("python_full_version >= '3.12'", ["3.12", "3.13", "3.14"], ""),
        ("python_full_version < '3.11' and sys_platform == 'x'", ["3.10"], " ; sys_platform == 'x'"),
        ("sys_platform == 'x'", list(PYTHONS), " ; sys_platform == 'x'"),
    ],
)
@pytest.mark.parametrize("end", ["", " \\\n    --hash=sha256:0\n"], ids=["alone", "hashed"])
def test_markers_are_judged_by_the_devices_python(marker: str, holding: list[str], kept: str, end: str) -> None:
    found = {version: build.pinned(f"x==1 ; {marker}{end}", version) for version in PYTHONS}
    assert found == {version: f"x==1{kept}{end}" if version in holding else "" for version in PYTHONS}


@pytest.mark.parametrize("marker", ["python_version == '3.13'", "python_full_version == '3.11'"])
def test_an_unknown_marker_is_refused(marker: str) -> None:
    with pytest.raises(SystemExit, match="a marker that is not known here"):
        build.pinned(f"x==1 ; {marker} \\\n    --hash=sha256:0\n", "3.13")


@cache
def listed(name: str) -> frozenset[str]:
    """File names of all versions of a package, as the index lists them."""
    answer = requests.get(f"{INDEX}/{name}/", timeout=20)
    answer.raise_for_status()
    return frozenset(re.findall(r">([^<>]+\.whl)</a>", answer.text))


@pytest.fixture(scope="module")
def index() -> Iterator[None]:
    """Nothing is downloaded but the list of each package's files."""
    names = {name for lock in LOCKS for name, _ in REQUIREMENT.findall(lock.read_text(encoding="utf-8"))}
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(listed, sorted(names)))
    except requests.RequestException as error:
        pytest.skip(f"the package index cannot be asked: {type(error).__name__}")
    yield


@cache
def wheels(name: str) -> list[tuple[str, frozenset[Tag]]]:
    """Version of each wheel of a package, and what it runs on."""
    return [(str(version), on) for _, version, _, on in map(parse_wheel_filename, listed(name))]


@cache
def machine(python: str, platform: str) -> frozenset[Tag]:
    """What a device takes."""
    version, platforms = tuple(int(part) for part in python.split(".")), build.compatible_platforms(platform)
    made = (tags.cpython_tags(version, platforms=platforms), tags.compatible_tags(version, platforms=platforms))
    return frozenset(itertools.chain(*made))


@pytest.mark.parametrize("lock", LOCKS, ids=[lock.parent.name for lock in LOCKS])
@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.usefixtures("index")
def test_every_lock_has_wheels_for_every_machine(lock: Path, platform: str, python: str) -> None:
    taken = machine(python, platform)
    for name, pin in REQUIREMENT.findall(build.pinned(lock.read_text(encoding="utf-8"), python)):
        assert any(version == pin and on & taken for version, on in wheels(name)), f"{name}=={pin}"

"""Artifacts that carry wheels: the locks resolve for every machine that the README names, by the index's own list."""

import hashlib
import itertools
import re
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import pytest
import requests
from packaging import tags
from packaging.tags import Tag
from packaging.utils import parse_wheel_filename

import device_wheels
from support import ROOT

LOCKS = sorted(ROOT.glob("components/*/requirements.lock"))
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_28_x86_64")
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
CUDA = ROOT / "components" / "inferencer" / "requirements-cuda.lock"
# What its index has: for aarch64 only newer ones, since NVIDIA's own build for JetPack is on no public index.
MACHINES = [
    *((python, PLATFORMS[1]) for python in PYTHONS),
    *((python, "manylinux_2_34_aarch64") for python in PYTHONS[1:]),
]
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
    found = device_wheels.compatible_platforms(platform)
    assert (found[0], found[-1], len(found)) == (first, last, count)


@pytest.mark.parametrize(
    "platform", ["aarch64", "manylinux_2_28_arm64", "manylinux_2_16_aarch64", "win_amd64", "x" * 50]
)
def test_a_wrong_platform_is_one_sentence(platform: str) -> None:
    with pytest.raises(SystemExit, match=r"^--wheels .*: expected manylinux_2_<glibc>_aarch64 or _x86_64, such as"):
        device_wheels.compatible_platforms(platform)


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
    found = {version: device_wheels.pinned(f"x==1 ; {marker}{end}", version) for version in PYTHONS}
    assert found == {version: f"x==1{kept}{end}" if version in holding else "" for version in PYTHONS}


@pytest.mark.parametrize("marker", ["python_version == '3.13'", "python_full_version == '3.11'"])
def test_an_unknown_marker_is_refused(marker: str) -> None:
    with pytest.raises(SystemExit, match="a marker that is not known here"):
        device_wheels.pinned(f"x==1 ; {marker} \\\n    --hash=sha256:0\n", "3.13")


LISTS = requests.Session()  # keeps connections


@cache
def listed(name: str) -> frozenset[str]:
    """File names of all versions of a package, as the index lists them."""
    answer = LISTS.get(f"{INDEX}/{name}/", timeout=20)
    answer.raise_for_status()
    return frozenset(re.findall(r">([^<>]+\.whl)</a>", answer.text))


@pytest.fixture(scope="module")
def index() -> Iterator[None]:
    """Nothing is downloaded but the list of each package's files."""
    names = {name for lock in [*LOCKS, CUDA] for name, _ in REQUIREMENT.findall(lock.read_text(encoding="utf-8"))}
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(listed, sorted(names)))
    except requests.RequestException as error:
        pytest.skip(f"the package index cannot be asked: {type(error).__name__}")
    yield
    LISTS.close()


@cache
def wheels(name: str, pin: str) -> list[frozenset[Tag]]:
    """What each wheel of a package's version runs on."""
    likely = [file for file in listed(name) if f"-{pin}-" in file]
    return [on for _, version, _, on in map(parse_wheel_filename, likely) if str(version) == pin]


@cache
def machine(python: str, platform: str) -> frozenset[Tag]:
    """What a device takes."""
    version, platforms = tuple(int(part) for part in python.split(".")), device_wheels.compatible_platforms(platform)
    made = (tags.cpython_tags(version, platforms=platforms), tags.compatible_tags(version, platforms=platforms))
    return frozenset(itertools.chain(*made))


@pytest.mark.parametrize("lock", LOCKS, ids=[lock.parent.name for lock in LOCKS])
@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.usefixtures("index")
def test_every_lock_has_wheels_for_every_machine(lock: Path, platform: str, python: str) -> None:
    taken = machine(python, platform)
    for name, pin in REQUIREMENT.findall(device_wheels.pinned(lock.read_text(encoding="utf-8"), python)):
        assert any(on & taken for on in wheels(name, pin)), f"{name}=={pin}"


@pytest.mark.parametrize(("python", "platform"), MACHINES)
@pytest.mark.usefixtures("index")
def test_the_lock_for_cuda_has_wheels_where_there_are_some(platform: str, python: str) -> None:
    test_every_lock_has_wheels_for_every_machine(CUDA, platform, python)


def tiny(folder: Path, name: str, version: str, tag: str) -> str:
    """A wheel in a folder, and the line of a lock that names it."""
    wheel = folder / f"{name}-{version}-{tag}.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(
            f"{name}-{version}.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        archive.writestr(f"{name}-{version}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\n")
        archive.writestr(f"{name}-{version}.dist-info/RECORD", "")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    return f"{name.replace('_', '-')}=={version} --hash=sha256:{digest}\n"


def test_the_makers_own_wheel_takes_the_place_of_the_public_one_by_its_hash(tmp_path: Path) -> None:
    (tmp_path / "maker").mkdir()
    (tmp_path / "wheels").mkdir()
    line = tiny(tmp_path / "maker", "tiny_gpu", "1.2", "cp310-cp310-linux_aarch64")
    machine = device_wheels.Wheels("manylinux_2_35_aarch64", "3.10", str(tmp_path / "maker"))
    lock = "other==1 --hash=sha256:0\ntiny-gpu==2 ; python_full_version >= '3.11' \\\n    --hash=sha256:1\nzoo==3\n"
    made = device_wheels.replaced(lock, {"tiny-gpu"}, machine, tmp_path / "wheels", "x")
    assert made == f"other==1 --hash=sha256:0\nzoo==3\n{line}"
    assert [path.name for path in (tmp_path / "wheels").iterdir()] == ["tiny_gpu-1.2-cp310-cp310-linux_aarch64.whl"]
    other = device_wheels.Wheels("manylinux_2_35_aarch64", "3.12", str(tmp_path / "maker"))
    with pytest.raises(SystemExit, match=r"^x: no wheels for manylinux_2_35_aarch64, Python 3\.12: ERROR"):
        device_wheels.replaced(lock, {"tiny-gpu"}, other, tmp_path / "wheels", "x")


def test_who_waits_in_vain_for_an_index_is_not_told_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_wheels, "TIMEOUT_S", 0.01)
    machine = device_wheels.Wheels("manylinux_2_35_aarch64", "3.10", "http://user:secret@127.0.0.1:9/simple")
    with pytest.raises(SystemExit, match=r"^x: no wheels for manylinux_2_35_aarch64 within 0\.01 s$"):
        device_wheels.replaced("tiny-gpu==2\n", {"tiny-gpu"}, machine, tmp_path, "x")

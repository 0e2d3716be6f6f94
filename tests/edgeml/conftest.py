"""A package with a component in it, a queue with its problems, and work folders in which artifacts were installed."""

import importlib.util
import shutil
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from component_support import COMPONENT
from edgeml.problems import Problems
from edgeml.spool import Spool
from install_support import install, make_artifact, venv_of
from spool_support import boxed


@pytest.fixture
def package(tmp_path: Path) -> Path:
    (tmp_path / "echo_component.py").write_text(textwrap.dedent(COMPONENT))
    return tmp_path


@pytest.fixture
def problems() -> Problems:
    return Problems()


@pytest.fixture
def spool(tmp_path: Path, problems: Problems) -> Iterator[Spool]:
    opened = boxed(tmp_path / "s", problems)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Artifacts `1`, `2` and `3`, a work folder `work` with 1 and 2 installed and 1 in use, and `work-3`."""
    folder = tmp_path_factory.mktemp("install")
    assert install(make_artifact(folder / "3", "3"), folder / "work-3").returncode == 0
    for version in ("2", "1"):
        assert install(make_artifact(folder / version, version), folder / "work").returncode == 0
    return folder


@pytest.fixture(scope="session")
def pip() -> str:
    """For `install`: that of .venv instead of the same that it unpacks."""
    (folder,) = importlib.util.find_spec("pip").submodule_search_locations  # type: ignore[union-attr,misc]
    return f"pip={folder}"


@pytest.fixture
def artifacts(installed: Path, tmp_path: Path) -> tuple[Path, Path]:
    for version in ("1", "2"):
        shutil.copytree(installed / version, tmp_path / version)
    return tmp_path / "1", tmp_path / "2"


@pytest.fixture
def both(installed: Path, artifacts: tuple[Path, Path], tmp_path: Path) -> Path:
    """A work folder with 1 in use and 2 beside it."""
    return Path(shutil.copytree(installed / "work", tmp_path / "both", symlinks=True))


@pytest.fixture
def third(installed: Path, both: Path, tmp_path: Path) -> Path:
    """A third artifact, whose environment `both` has, too."""
    name = venv_of(installed / "3")
    shutil.copytree(installed / "work-3" / name, both / name, symlinks=True)
    return Path(shutil.copytree(installed / "3", tmp_path / "3"))


@pytest.fixture
def work(both: Path, artifacts: tuple[Path, Path]) -> Path:
    """A work folder with 1 in use."""
    shutil.rmtree(both / venv_of(artifacts[1]))
    (both / "checkpoint").write_text("of the component")
    return both

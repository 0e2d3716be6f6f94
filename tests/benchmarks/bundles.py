"""Model bundles for benchmarks, built as a user builds them."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgeml.models import component_folder
from localdev.workspace import Workspace


@contextmanager
def installed(*packages: str) -> Iterator[Path]:
    """A core root in which the model components `packages` are installed."""
    with tempfile.TemporaryDirectory() as folder:
        for build in Workspace().build(packages):
            (archive,) = build.glob("artifacts/*/*/*.zip")
            place = component_folder(Path(folder), archive.parent.parent.name.removeprefix("edgeml.model."))
            subprocess.run([sys.executable, "-m", "zipfile", "-e", str(archive), str(place)], check=True, timeout=60)
        yield Path(folder)

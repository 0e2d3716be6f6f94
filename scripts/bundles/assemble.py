"""Writes a bundle folder from its model.json and the files that are made at build time."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from edgeml import models


def assemble(source: Path, out: Path, files: Mapping[str, bytes]) -> None:
    """`out` becomes a bundle: `model.json` of `source` and `files`, by name.

    Raises edgeml.errors.BundleError when a file is not the one whose sha256 model.json gives.
    """
    out.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source / "model.json", out / "model.json")
    for name, content in files.items():
        (out / name).write_bytes(content)
    models.load(out)

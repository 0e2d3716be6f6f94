"""Writes a bundle folder from its model.json and the files that are made at build time.

scripts/build.py loads every bundle once it is made, and so compares each file with what model.json says of it.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path


def assemble(source: Path, out: Path, files: Mapping[str, bytes]) -> None:
    """`out` becomes a bundle: `model.json` of `source` and `files`, by name."""
    out.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source / "model.json", out / "model.json")
    for name, content in files.items():
        (out / name).write_bytes(content)

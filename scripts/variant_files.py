"""Variants as they lie in a bundle."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bundles import half, quantize
from edgeml import models
from edgeml.bundle import Bundle
from edgeml.files import write_atomic
from edgeml.variants import ACCELERATORS, CPU


class Made(NamedTuple):
    """A variant: what model.json is to say of it, and its content."""

    file: str
    content: bytes
    precision: str
    isa: str
    providers: Sequence[str]
    accuracy: dict[str, float]


def for_processor(isa: str, content: bytes, accuracy: dict[str, float]) -> Made:
    return Made(quantize.file_name(isa), content, "int8", isa, (CPU,), accuracy)


def for_accelerators(content: bytes, accuracy: dict[str, float]) -> Made:
    return Made(half.FILE, content, "fp16", "any", ACCELERATORS, accuracy)


def with_variants(bundle: Bundle, made: Sequence[Made], out: Path) -> Bundle:
    """A bundle in the folder `out` that has these, and none of `bundle` in the same precision. Raises EdgemlError."""
    if out.resolve() != bundle.path:
        shutil.copytree(bundle.path, out)
    described = json.loads((out / "model.json").read_text(encoding="utf-8"))
    precisions = {variant.precision for variant in made}
    described["variants"] = [one for one in described.get("variants", []) if one["precision"] not in precisions]
    for variant in made:
        write_atomic(out / variant.file, variant.content)  # whoever runs the bundle may read it meanwhile
        told = {"sha256": models.sha256(out / variant.file), **variant._asdict()}
        del told["content"]
        described["variants"].append(told)
    write_atomic(out / "model.json", json.dumps(described, indent=2) + "\n")
    return models.load(out)

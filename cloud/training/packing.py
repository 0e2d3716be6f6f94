"""What training leaves behind: a model archive for the registry, a model bundle for the device."""

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeml import models
from edgeml.variants import runnable, this_processor

SAMPLES = 192


def npy(array: npt.NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def samples(values: npt.NDArray[Any]) -> dict[str, bytes]:
    """Samples [n, ...] of a model's input for the export, which makes variants by them: a third to calibrate with, the
    others to compare with fp32. As many as are needed, evenly from all there are.
    """
    chosen = values[np.unique(np.linspace(0, len(values) - 1, SAMPLES, dtype=int))]
    calibration = np.arange(len(chosen)) % 3 == 0
    return {"calibration.npy": npy(chosen[calibration]), "evaluation.npy": npy(chosen[~calibration])}


def pack(folder: Path, archive: Path) -> None:
    """`archive` (model.tar.gz) of the files in `folder`: equal files give equal bytes."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    with gzip.GzipFile(archive, "wb", mtime=0) as compressed, tarfile.open(fileobj=compressed, mode="w") as tar:
        for path in sorted(folder.iterdir()):
            entry = tarfile.TarInfo(path.name)
            content = path.read_bytes()
            entry.size, entry.mode = len(content), 0o644
            tar.addfile(entry, io.BytesIO(content))


def write_bundle(out: Path, draft: Mapping[str, Any], model: bytes, files: Mapping[str, bytes]) -> None:
    """The bundle folder `out`: model.onnx, `files`, and model.json, which is `draft` with the digests filled in.

    Variants that `draft` names, as scripts/optimize makes them, are among `files` and keep their digests. Raises
    edgeml.errors.BundleError when the bundle does not load, or its model or a variant for this machine does not run.
    """
    out.mkdir(parents=True, exist_ok=True)
    (out / "model.onnx").write_bytes(model)
    for name, content in files.items():
        (out / name).write_bytes(content)
    variants = draft.get("variants") or []
    named = [each.get("file") for each in variants if isinstance(each, dict)] if isinstance(variants, list) else []
    digests = {
        name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items()) if name not in named
    }
    manifest = {**draft, "sha256": hashlib.sha256(model).hexdigest(), "files": digests}
    (out / "model.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    check(out)


def check(folder: Path) -> None:
    """Whether the bundle in `folder` loads, and its model and its variants for this machine run. Raises BundleError."""
    bundle = models.load(folder)
    for file in (bundle.file, *(variant.file for variant in runnable(bundle.manifest.variants, this_processor()))):
        one = bundle.using(file)
        models.probe(models.open_session(one), one)

"""INT8 variants of a bundle for the processor of this machine, by scripts/optimize, from samples beside the model.

Whatever goes wrong costs the variants alone: the bundle is exported without, and the report says why.
"""

import io
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

import packing
from edgeml import models
from edgeml.bundle import InputTensor, Manifest
from edgeml.errors import EdgemlError

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "optimize.py"
CALIBRATION, EVALUATION = "calibration.npy", "evaluation.npy"
MAX_BYTES = 256 * 2**20  # of either
TIMEOUT_S = 900.0
MAX_TOLD, MAX_WHY = 1 << 16, 500  # bytes of what the script says, and characters of why
INHERITED = ("PATH", "HOME", "LANG", "TMPDIR")  # no keys: what is foreign has no business with AWS


class NoneMadeError(Exception):
    """Why there are no variants."""


@dataclass(frozen=True)
class Tried:
    """A bundle's folder, with variants or without; what was tried, as text and picture, if anything was."""

    folder: Path
    report: str = ""
    plot: bytes = b""


def with_variants(folder: Path, files: Mapping[str, bytes], max_loss: float, min_gain: float, scratch: Path) -> Tried:
    """The bundle in `folder`, in a folder of `scratch` with variants where they are worth it. Never raises for them.

    `files` are those of the archive. A variant loses at most `max_loss` of its agreement with fp32, a share; 0 makes
    none. It is at least `min_gain` times as fast.
    """
    manifest = models.read_manifest(folder)
    if not max_loss:
        why = "they are not wanted"
    elif manifest.variants:
        why = "the archive brings its own"
    elif not {CALIBRATION, EVALUATION} <= files.keys():
        why = f"the archive has no {CALIBRATION} and {EVALUATION}"
    else:
        tried = _tried(folder, manifest, files, max_loss, min_gain, scratch)
        print(tried.report, flush=True)
        return tried
    print(f"no variants are made: {why}", flush=True)
    return Tried(folder)


def _tried(
    folder: Path, manifest: Manifest, files: Mapping[str, bytes], max_loss: float, min_gain: float, scratch: Path
) -> Tried:
    out, plot, table = scratch / "optimized", scratch / "plot.png", ""
    command = [sys.executable, str(SCRIPT), str(folder), "--output", str(out), "--plot", str(plot)]
    command += ["--max-loss", str(max_loss), "--min-gain", str(min_gain)]
    try:
        for option, name in (("--calibration", CALIBRATION), ("--evaluate", EVALUATION)):
            check(name, files[name], manifest.input)
            place = scratch / option.strip("-")
            place.mkdir()
            (place / name).write_bytes(files[name])
            command += [option, str(place)]
        table, why = _run(command, scratch)
        if why:
            raise NoneMadeError(why)
        packing.check(out)
        found = ", ".join(variant.name for variant in models.read_manifest(out).variants)
    except (NoneMadeError, EdgemlError, OSError) as error:
        out, found = folder, f"no variants: {str(error)[:MAX_WHY]}"
    limits = f"kept are those that lose at most {max_loss:g} and are {min_gain:g} x as fast"
    report = "\n".join(filter(None, (f"{manifest.name} {manifest.version}: {found}", table, limits, "")))
    return Tried(out, report, plot.read_bytes() if plot.exists() else b"")


def _run(command: list[str], scratch: Path) -> tuple[str, str]:
    """What the script said: a table, and why there is nothing, which is empty if there is."""
    environment = {name: os.environ[name] for name in INHERITED if name in os.environ}
    with tempfile.TemporaryFile(dir=scratch) as table, tempfile.TemporaryFile(dir=scratch) as messages:
        try:
            done = subprocess.run(
                command,
                cwd=scratch,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=table,
                stderr=messages,
                timeout=TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return _told(table), f"no end after {TIMEOUT_S:g} s"
        if not done.returncode:
            return _told(table), ""
        said = _told(messages).splitlines() or [f"ended with {done.returncode}"]
        return _told(table), said[-1].removeprefix("optimize: ")


def _told(file: IO[bytes]) -> str:
    file.seek(max(0, file.seek(0, io.SEEK_END) - MAX_TOLD))
    return file.read().decode(errors="replace").strip()


def check(name: str, content: bytes, declared: InputTensor) -> None:
    """Whether a .npy file holds samples of the model's input, as its header says. Raises NoneMadeError.

    Vectors [n, *shape] of numbers, or pictures [n, height, width, 3] of uint8, BGR.
    """
    if len(content) > MAX_BYTES:
        raise NoneMadeError(f"{name} has {len(content)} bytes, {MAX_BYTES} are allowed")
    stream, form = io.BytesIO(content), np.lib.format
    try:
        read = {(1, 0): form.read_array_header_1_0, (2, 0): form.read_array_header_2_0}[form.read_magic(stream)]
        shape, _, dtype = read(stream)
    except Exception as error:  # a header is parsed as Python, and a wrong one fails in many ways
        raise NoneMadeError(f"{name} is no array: {error}") from error
    if declared.layout == "tensor":
        expected = f"numbers [n, {', '.join(map(str, declared.shape))}]"
        fits = dtype.kind in "fiub" and list(shape[1:]) == declared.shape
    else:
        expected = "pictures [n, height, width, 3] of uint8"
        fits = dtype == np.uint8 and len(shape) == 4 and shape[3] == 3
    if not fits or not min(shape, default=0) > 0:
        raise NoneMadeError(f"{name} holds {dtype} {list(shape)}, expected {expected}")
    if len(content) - stream.tell() != math.prod(shape) * dtype.itemsize:
        raise NoneMadeError(f"{name} has another length than its header says")

"""Bundles that a helper answers for."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import decoder_cases as cases
from edgeml.component import Context
from fitting_support import exported
from forked import popen
from inferencer.backends.external import ExternalBackend, ExternalModel
from inferencer.sources.camera import CameraSource
from inferencer_support import picture, pipeline
from support import ROOT

HELPER = ROOT / "scripts" / "external_helper.py"
PICTURE = picture(blue=9, size=(cases.SIZE[1], cases.SIZE[0]))


def bundle(folder: Path) -> Path:
    return exported(
        folder / "bundle",
        cases.yolo_v8().outputs,
        task="detection",
        labels=list(cases.LABELS),
        input={"name": "input", "size": list(cases.SIZE)},
        output={"decoder": "yolo"},
    )


@contextmanager
def helper(folder: Path, path: Path) -> Iterator[subprocess.Popen[str]]:
    """The reference helper on a socket."""
    command = [sys.executable, str(HELPER), str(folder), str(path)]
    with popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("listening")
            yield process
        finally:
            process.kill()


def made(context: Context, path: Path, **settings: Any) -> ExternalModel:
    backend = ExternalBackend(socket=str(path), **settings)
    return ExternalModel(backend, pipeline(backend, CameraSource(camera="c")), context, "pipelines.p")


def problem(context: Context) -> str:
    return "".join(found.code for found in context.health.problems.current())

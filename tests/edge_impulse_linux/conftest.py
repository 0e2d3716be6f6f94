"""The component as a process, a Studio that it finds, and a folder for rings."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from localdev.simulators.studio import FakeStudio
from studio_support import DEVICE, Start
from support import Standalone


@pytest.fixture
def studio() -> Iterator[FakeStudio]:
    with FakeStudio() as running:
        yield running


@pytest.fixture
def rings(tmp_path: Path) -> Path:
    folder = tmp_path / "rings"
    folder.mkdir()
    return folder


@pytest.fixture
def start(tmp_path: Path, studio: FakeStudio, rings: Path) -> Iterator[Start]:
    with ExitStack() as stack:

        def run(*, key: str = "ei_test", **config: Any) -> Standalone:
            settings = {
                "Parameters": {"device_name": "Bob's Door", "launch": "linux"},
                "cameras": ["front"],
                "ring_directory": str(rings),
                "device_id": DEVICE,
                "secrets": {"EI_API_KEY": json.dumps({"ei_api_key": key})},
                **config,
            }
            process = Standalone("edge_impulse_linux", settings, tmp_path / "work", env={"EI_HOST": studio.host})
            return stack.enter_context(process)

        yield run

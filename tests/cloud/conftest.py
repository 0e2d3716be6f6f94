"""The template's functions in a local cloud, one per test module, and faults for it."""

from collections.abc import Iterator

import pytest

from cloud_support import ANY_THING, Faults
from localdev.cloud import LocalCloud
from localdev.cloud.cloud import TEMPLATE
from localdev.cloud.template import Stack


@pytest.fixture(scope="module")
def stack() -> Stack:
    """The template with its defaults, not running."""
    return Stack(TEMPLATE)


@pytest.fixture(scope="module")
def running_cloud() -> Iterator[LocalCloud]:
    with LocalCloud(TEMPLATE, ANY_THING, retry_delay_s=0.01) as cloud:
        cloud.aws.stand_ins.insert(0, Faults())
        yield cloud


@pytest.fixture
def cloud(running_cloud: LocalCloud) -> LocalCloud:
    return running_cloud


@pytest.fixture
def faults(running_cloud: LocalCloud) -> Iterator[Faults]:
    found = running_cloud.aws.stand_ins[0]
    assert isinstance(found, Faults)
    found.clear()
    yield found
    found.clear()

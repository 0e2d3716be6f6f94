"""A cloud without a template, and its IoT Jobs."""

from collections.abc import Iterator
from typing import Any

import pytest

from jobs_support import Device
from localdev.cloud import LocalCloud
from localdev.cloud.iot_jobs import IotJobs


@pytest.fixture(scope="module")
def cloud() -> Iterator[LocalCloud]:
    with LocalCloud() as running:
        yield running


@pytest.fixture
def jobs(cloud: LocalCloud) -> Iterator[IotJobs]:
    """A minute of a rollout lasts a second here."""
    with IotJobs(cloud.aws, *cloud.mqtt_address, minute_s=1.0) as running:
        yield running
    cloud.aws.reset()


@pytest.fixture
def iot(cloud: LocalCloud, jobs: IotJobs) -> Any:
    return cloud.aws.client("iot")


@pytest.fixture
def device(cloud: LocalCloud, jobs: IotJobs) -> Iterator[Device]:
    made = Device(cloud, "pump")
    yield made
    made.close()

"""Each limit of what stands in for AWS and Greengrass: none, just below, at it, and just above."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from localdev.cloud import iot_broker, iot_jobs_rules
from localdev.core import Profile
from localdev.core.config_store import ConflictError, merge_lite
from localdev.core.lite import refusals
from localdev.core.states import ErrorCount, State
from localdev.core.wire import FrameError, Header, HeaderType, encode_headers

Takes = Callable[[int], bool]
RECIPE = {
    "RecipeFormatVersion": "2020-01-25",
    "ComponentName": "test.A",
    "ComponentVersion": "1.0.0",
    "ComponentDescription": "a component of a test",
    "Manifests": [
        {"Platform": {"os": "linux", "runtime": "*"}, "Lifecycle": {"run": "exec sleep 60"}, "Artifacts": []}
    ],
}


def no_error(error: type[Exception], call: Callable[..., Any], *arguments: Any) -> bool:
    try:
        call(*arguments)
    except error:
        return False
    return True


def job(**request: Any) -> bool:
    given = {"targets": ["arn"], "document": "{}", **request}
    return iot_jobs_rules.refusal(str(given.pop("job_id", "job")), given, False, lambda arn: True) is None


def rollout(**plan: Any) -> bool:
    return job(jobExecutionsRolloutConfig=plan)


def headers(count: int = 1, name: int = 1, value: int = 1) -> bool:
    made: dict[str, Header] = {f"{number:0{name}}": (HeaderType.STRING, "x" * value) for number in range(count)}
    return no_error(FrameError, encode_headers, made if name else {"": (HeaderType.TRUE, True)})


def recipe(size: int, profile: Profile) -> bool:
    return refusals(RECIPE, bytes(size), profile) == []


def leaf(size: int) -> bool:
    return no_error(ConflictError, merge_lite, {}, {"key": "x" * (size - 2)}, 1.0)  # with its quotes


def lives_after(errors: int) -> bool:
    count = ErrorCount(3600.0, sliding=False)
    return not any(count.add(State.RUNNING) for _ in range(errors))


LIMITS: dict[str, tuple[int, bool, Takes]] = {  # the most, whether none is taken, and what takes that much
    "bytes of a payload for IoT Core": (128 * 1024, True, lambda n: iot_broker.allowed("a", n)),
    "bytes of a topic of IoT Core": (256, False, lambda n: iot_broker.allowed("é" * (n // 2) + "e" * (n % 2), 1)),
    "slashes of a topic of IoT Core": (7, True, lambda n: iot_broker.allowed("a" + "/a" * n, 1)),
    "slashes of a topic that is AWS' own": (7, True, lambda n: iot_broker.allowed("$aws/a/b/c" + "/a" * n, 1)),
    "characters of a job document": (32_768, False, lambda n: job(document=json.dumps("x" * (n - 2))[:n])),
    "characters of a job's id": (64, False, lambda n: job(job_id="j" * n)),
    "things a minute of a job": (1000, False, lambda n: rollout(maximumPerMinute=n)),
    "things a minute at first": (1000, False, lambda n: rollout(exponentialRate={"baseRatePerMinute": n})),
    "percent of failures of a job": (
        100,
        True,
        lambda n: job(abortConfig={"criteriaList": [{"thresholdPercentage": n, "minNumberOfExecutedThings": 1}]}),
    ),
    "minutes in progress": (10_080, False, lambda n: job(timeoutConfig={"inProgressTimeoutInMinutes": n})),
    "headers of a message": (1024, True, lambda n: headers(count=n)),
    "bytes of a header's name": (255, False, lambda n: headers(name=n)),
    "bytes of a header's value": (32_767, True, lambda n: headers(value=n)),
    "bytes of a recipe": (16_000, True, lambda n: recipe(n, Profile.JAVA)),
    "bytes of a recipe for Lite": (8_000, True, lambda n: recipe(n, Profile.LITE)),
    "bytes of a value in Lite": (1024, True, leaf),
    "errors before a component is BROKEN": (2, True, lives_after),
}


@pytest.mark.parametrize("limit", LIMITS)
def test_at_most(limit: str) -> None:
    most, none, takes = LIMITS[limit]
    assert [takes(n) for n in (0, most - 1, most, most + 1)] == [none, True, True, False]


LEAST: dict[str, tuple[float, float, Callable[[float], bool]]] = {  # the least, the step below it
    "seconds that a URL in a job lasts": (60, 1, lambda n: job(presignedUrlConfig={"expiresInSec": n})),
    "factor by which a rollout grows": (1.1, 0.1, lambda n: rollout(exponentialRate={"incrementFactor": n})),
    "things a minute of a job": (1, 1, lambda n: rollout(maximumPerMinute=n)),
    "things that must have ended before a job is aborted": (
        1,
        1,
        lambda n: job(abortConfig={"criteriaList": [{"thresholdPercentage": 1, "minNumberOfExecutedThings": n}]}),
    ),
}


@pytest.mark.parametrize("limit", LEAST)
def test_at_least(limit: str) -> None:
    least, step, takes = LEAST[limit]
    assert [takes(n) for n in (0, least - step, least, least + step)] == [False, False, True, True]

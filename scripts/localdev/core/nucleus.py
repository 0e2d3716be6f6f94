"""The configuration of the nucleus component itself, as GetConfiguration shows it to every component."""

from typing import Any

from localdev.core.profiles import Profile


def configuration(profile: Profile, region: str, poll_seconds: float, user: dict[str, str]) -> dict[str, Any]:
    """What a core shows that is set up for no cloud. `user`: its runWithDefault but for the shell."""
    endpoints = {"awsRegion": region, "iotCredEndpoint": "", "iotDataEndpoint": "", "iotRoleAlias": ""}
    if profile is Profile.LITE:
        return {**endpoints, "greengrassDataPlanePort": "8443", "networkProxy": {}, "runWithDefault": {}}
    return {
        **endpoints,
        "componentStoreMaxSizeBytes": 10_000_000_000,
        "deploymentConfigurationTimeSource": "deploymentCreationTime",
        "deploymentPollingFrequencySeconds": poll_seconds,
        "envStage": "prod",
        "fipsMode": "false",
        "greengrassDataPlaneEndpoint": "",
        "greengrassDataPlanePort": 8443,
        "interpolateComponentConfiguration": False,
        "logging": {},
        "mqtt": {"spooler": {}},
        "networkProxy": {"proxy": {}},
        "platformOverride": {},
        "runWithDefault": {"posixShell": "sh", **user},
        "s3EndpointType": "GLOBAL",
        "telemetry": {},
    }

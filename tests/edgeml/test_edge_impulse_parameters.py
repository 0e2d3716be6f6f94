import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edgeml import config
from edgeml.edge_impulse.device import Topics, default_mac, device_name
from edgeml.edge_impulse.parameters import NOT_NEEDED, Parameters, Settings, interpret


class Config(msgspec.Struct, frozen=True):
    parameters: Parameters = msgspec.field(name="Parameters", default_factory=Parameters)


def settings(**parameters: Any) -> Settings:
    return interpret(config.load(Config, {"Parameters": parameters}).parameters)


# As deployed with Edge Impulse's own component, every attribute at its recipe default.
PEERS = {
    "node_version": "20.16.0",
    "vips_version": "8.12.1",
    "device_name": "MyEdgeImpulseDevice",
    "launch": "runner",
    "sleep_time_sec": 10,
    "lock_filename": "/tmp/ei_lockfile_runner",
    "gst_args": "__none__",
    "eiparams": "--greengrass",
    "iotcore_backoff": "5",
    "iotcore_qos": "1",
    "ei_bindir": "/usr/local/bin",
    "ei_sm_secret_id": "EI_API_KEY",
    "ei_sm_secret_name": "ei_api_key",
    "ei_poll_sleeptime_ms": 2500,
    "ei_local_model_file": "__none__",
    "ei_shutdown_behavior": "__none__",
    "ei_ggc_user_groups": "video audio input users system",
    "install_kvssink": "no",
    "publish_inference_base64_image": "no",
    "enable_cache_to_file": "no",
    "cache_file_directory": "__none__",
    "enable_threshold_limit": "no",
    "metrics_sleeptime_ms": 30000,
    "default_threshold": 50.0,
    "threshold_criteria": "ge",
    "enable_cache_to_s3": "no",
    "s3_bucket": "__none__",
}


@pytest.mark.parametrize("as_strings", [False, True])
def test_the_peers_deployment_is_taken_unchanged(as_strings: bool) -> None:
    deployed = {key: str(value) for key, value in PEERS.items()} if as_strings else PEERS
    assert config.unknown_keys(Config, {"Parameters": deployed}) == []
    found = settings(**json.loads(json.dumps(deployed)))
    assert found == interpret(Parameters())
    assert (found.every, found.qos, found.metrics_interval_s, found.model_file) == (5, 1, 30.0, None)


def test_what_only_served_node_is_told_once_each_as_not_needed() -> None:
    notes = settings(**PEERS).notes
    for name in set(NOT_NEEDED) - {"gst_args"}:  # unset there
        assert sum(note.startswith(f"{name} is not needed") for note in notes) == 1
    assert not any("not needed" in note for note in settings().notes)


@pytest.mark.parametrize(
    ("given", "threshold", "word"),
    [
        (50.0, 0.5, "percent"),
        ("85", 0.85, "percent"),
        (0.7, 0.7, "fraction"),
        ("1.0", 1.0, "fraction"),
        (1.5, 0.015, "percent"),
        (0, 0.7, "neither"),
        (101, 0.7, "neither"),
        ("high", 0.7, "neither"),
    ],
)
def test_the_threshold_in_both_forms_and_how_it_was_read(given: Any, threshold: float, word: str) -> None:
    found = settings(default_threshold=given)
    assert found.threshold == pytest.approx(threshold)
    assert any("default_threshold" in note and word in note for note in found.notes)


@pytest.mark.parametrize(
    ("given", "every"), [("5", 5), (1, 1), (0, 1), (-1, 1), ("-1", 1), ("often", 1), ("NaN", 1), (2.5, 3)]
)
def test_backoff(given: Any, every: int) -> None:
    assert settings(iotcore_backoff=given).every == every


@pytest.mark.parametrize(("given", "qos"), [("0", 0), (1, 1), (2, 1), ("3", 1), (7, 0), ("x", 0)])
def test_quality_of_service(given: Any, qos: int) -> None:
    found = settings(iotcore_qos=given)
    assert found.qos == qos
    assert any("iotcore_qos" in note for note in found.notes) == (str(given) not in ("0", "1"))


@pytest.mark.parametrize(("given", "seconds"), [(30000, 30.0), ("101", 0.101), (100, 60.0), ("x", 60.0), (-1, 60.0)])
def test_time_between_metrics(given: Any, seconds: float) -> None:
    assert settings(metrics_sleeptime_ms=given).metrics_interval_s == seconds


@pytest.mark.parametrize(("given", "criterion"), [("gt", "gt"), ("LT", "lt"), (" eq ", "eq"), ("most", "ge")])
def test_criteria_in_any_case_else_ge(given: str, criterion: str) -> None:
    assert settings(threshold_criteria=given).criterion == criterion


@pytest.mark.parametrize("yes", ["yes", "Yes", True, "true", 1])
def test_yes_in_its_spellings(yes: Any) -> None:
    found = settings(
        publish_inference_base64_image=yes,
        enable_threshold_limit=yes,
        enable_cache_to_file=yes,
        cache_file_directory="/data",
        enable_cache_to_s3=yes,
        s3_bucket="bucket",
    )
    assert (found.include_image, found.threshold_enabled) == (True, True)
    assert (found.cache_folder, found.s3_bucket) == (Path("/data"), "bucket")


def test_a_cache_without_a_place_is_off_and_said() -> None:
    found = settings(enable_cache_to_file="yes", enable_cache_to_s3="yes", cache_file_directory="__none__")
    assert (found.cache_folder, found.s3_bucket) == (None, "")
    assert sum("is on but" in note for note in found.notes) == 2


def test_paths_and_shutdown() -> None:
    found = settings(ei_local_model_file="/m.eim", ei_shutdown_behavior="wait_on_restart")
    assert (found.model_file, found.wait_on_restart) == (Path("/m.eim"), True)


@pytest.mark.parametrize(
    ("configured", "mac", "name"),
    [
        ("MyDevice", "02:fc:00:00:00:01", "MyDevice_02fc00000001"),
        ("Bob's  cam", "", "Bobs__cam"),
        ("__none__", "02:fc:00:00:00:01", "02fc00000001"),
        ("a/b+c#d", "", "a_b_c_d"),
    ],
)
def test_device_name(configured: str, mac: str, name: str) -> None:
    assert device_name(configured, mac) == name


def test_topics() -> None:
    topics = Topics("D")
    assert topics.inference == "/edgeimpulse/device/D/inference/output"
    assert topics.metrics == "/edgeimpulse/device/D/model/metrics"
    assert topics.command_input == "/edgeimpulse/device/D/command/input"
    assert topics.command_output == "/edgeimpulse/device/D/command/output"
    assert Topics("D", "edge").inference == "edge/D/inference/output"


def test_mac_of_the_default_route(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    route = tmp_path / "net/route"
    route.write_text("Iface\tDestination\tGateway\nlo\t0000007F\t0\nwlan0\t00000000\t010011AC\n")
    address = tmp_path / "class/net/wlan0/address"
    address.parent.mkdir(parents=True)
    address.write_text("02:fc:00:00:00:01\n")
    assert default_mac(proc=tmp_path, sys=tmp_path) == "02:fc:00:00:00:01"
    route.write_text("Iface\tDestination\tGateway\n")
    assert default_mac(proc=tmp_path, sys=tmp_path) == ""

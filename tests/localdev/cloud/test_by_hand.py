"""`scripts/cloud start` as a person runs it."""

import os
import signal
import subprocess
import sys

import boto3
import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

COMMAND = [sys.executable, "-m", "localdev.cloud", "start", "--empty"]


def test_a_cloud_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    cloud = subprocess.Popen(
        COMMAND,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert cloud.stdout
        assert "never for production" in cloud.stdout.readline()
        host, port = cloud.stdout.readline().rpartition("mqtt://")[2].strip().split(":")
        while "AWS_ENDPOINT_URL" not in os.environ or "AWS_SECRET_ACCESS_KEY" not in os.environ:
            name, _, value = cloud.stdout.readline().removeprefix("export ").strip().partition("=")
            assert value, "the environment ends early"
            monkeypatch.setenv(name, value.strip("'"))
        assert boto3.client("s3", region_name="us-east-1").list_buckets()["Buckets"] == []
        client = paho.Client(CallbackAPIVersion.VERSION2)
        assert client.connect(host, int(port)) == paho.MQTT_ERR_SUCCESS
        client.disconnect()
    finally:
        cloud.send_signal(signal.SIGTERM)
        _, errors = cloud.communicate(timeout=20)
    assert (cloud.returncode, errors) == (0, "Stopping\n")


def test_a_broker_that_is_not_there() -> None:
    done = subprocess.run(
        [*COMMAND, "--mqtt", "mqtt://127.0.0.1:1"],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr

"""`pubsub ...` and `iotcore ...` of scripts/core."""

import argparse
import contextlib
import json
import os
import sys
import threading
from typing import Any

from localdev.core.client import CliError, connect, describe


def publish(options: argparse.Namespace) -> None:
    """`pubsub pub`: an object goes as a JSON message, anything else as bytes."""
    from awsiot.greengrasscoreipc import model

    try:
        content = json.loads(options.message)
    except ValueError:
        content = None
    if isinstance(content, dict):
        message = model.PublishMessage(json_message=model.JsonMessage(message=content))
    else:
        message = model.PublishMessage(binary_message=model.BinaryMessage(message=options.message.encode()))
    with connect(options.root) as client:
        client.publish_to_topic(topic=options.topic, publish_message=message)


def subscribe(options: argparse.Namespace) -> None:
    """`pubsub sub`: prints messages until Ctrl-C."""
    printer = _Printer()

    def show(event: Any) -> None:
        if event.json_message:
            printer.print(json.dumps(event.json_message.message, separators=(",", ":")))
        else:
            printer.print((event.binary_message.message or b"").decode(errors="replace"))

    with connect(options.root) as client:
        client.subscribe_to_topic(topic=options.topic, on_stream_event=show, on_stream_error=printer.failed)
        printer.until_interrupted(options.topic)


def iot_publish(options: argparse.Namespace) -> None:
    """`iotcore pub`."""
    with connect(options.root) as client:
        client.publish_to_iot_core(topic_name=options.topic, qos=options.qos, payload=options.message.encode())


def iot_subscribe(options: argparse.Namespace) -> None:
    """`iotcore sub`: prints messages until Ctrl-C."""
    printer = _Printer()

    def show(event: Any) -> None:
        printer.print((event.message.payload or b"").decode(errors="replace"))

    with connect(options.root) as client:
        if not describe(client)["iot_core"]:
            raise CliError("this core has no broker that stands in for IoT Core: scripts/core start --mqtt URL")
        client.subscribe_to_iot_core(
            topic_name=options.topic, qos=options.qos, on_stream_event=show, on_stream_error=printer.failed
        )
        printer.until_interrupted(options.topic)


class _Printer:
    """Prints messages, on the client's thread, until Ctrl-C, the end of the subscription or of who reads."""

    def __init__(self) -> None:
        self._ended = threading.Event()
        self._pipe_closed = False

    def print(self, text: str) -> None:
        """Prints one message."""
        try:
            print(text, flush=True)
        except BrokenPipeError:
            self._pipe_closed = True
            self._ended.set()

    def failed(self, error: Exception) -> bool:
        """The subscription has ended with an error."""
        print(f"scripts/core: {type(error).__name__}: {error}", file=sys.stderr)
        self._ended.set()
        return True

    def until_interrupted(self, topic: str) -> None:
        """Waits. BrokenPipeError if nobody reads any more."""
        print(f"Subscribed to {topic}, until {ending()}", file=sys.stderr, flush=True)
        self.print(f"Successfully subscribed to topic: {topic}")
        with contextlib.suppress(KeyboardInterrupt):
            self._ended.wait()
        if self._pipe_closed:
            raise BrokenPipeError


def ending() -> str:
    """How a person ends this process: Ctrl-C reaches the foreground of a terminal only."""
    try:
        in_front = sys.stdin is not None and os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except (OSError, ValueError):
        in_front = False
    return "Ctrl-C" if in_front else f"`kill {os.getpid()}`"

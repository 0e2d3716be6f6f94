"""What each word of greengrass-cli does against a running core. Each takes the parsed options."""

import argparse
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from localdev.core.client import CliError, connect

_FOLLOW_SECONDS = 0.2


def create_deployment(options: argparse.Namespace) -> None:
    """`deployment create`."""
    merge = {}
    for item in _split(options.merge):
        name, equals, version = item.partition("=")
        if not equals:
            raise CliError(f"--merge {item}: expected NAME=VERSION")
        merge[name] = version
    update_config = _read_json(options.update_config) if options.update_config else None
    with connect(options.root) as client:
        response = client.create_local_deployment(
            root_component_versions_to_add=merge,
            root_components_to_remove=_split(options.remove),
            component_to_configuration=update_config,
            recipe_directory_path=_absolute(options.recipe_dir),
            artifacts_directory_path=_absolute(options.artifact_dir),
        )
    print(f"Local deployment submitted! Deployment Id: {response.deployment_id}")


def deployment_status(options: argparse.Namespace) -> None:
    """`deployment status`."""
    with connect(options.root) as client:
        deployment = client.get_local_deployment_status(deployment_id=options.deployment_id).deployment
    print(f"{deployment.deployment_id}: {deployment.status}")
    details = deployment.deployment_status_details
    if details:
        print(f"Detailed Status: {details.detailed_deployment_status}")
        if details.deployment_failure_cause:
            print(f"Failure Cause: {details.deployment_failure_cause}")


def list_deployments(options: argparse.Namespace) -> None:
    """`deployment list`."""
    with connect(options.root) as client:
        for deployment in client.list_local_deployments().local_deployments:
            print(f"{deployment.deployment_id}: {deployment.status}")


def list_components(options: argparse.Namespace) -> None:
    """`component list`."""
    with connect(options.root) as client:
        for component in client.list_components().components:
            _print_component(component)


def component_details(options: argparse.Namespace) -> None:
    """`component details`."""
    with connect(options.root) as client:
        _print_component(client.get_component_details(component_name=options.names).component_details)


def restart_components(options: argparse.Namespace) -> int:
    """`component restart`; the exit code is 1 if one could not be restarted."""
    failed = False
    with connect(options.root) as client:
        for name in _split([options.names]):
            answer = client.restart_component(component_name=name)
            print(f"{name}: {answer.restart_status}{f' ({answer.message})' if answer.message else ''}")
            failed |= answer.restart_status != "SUCCEEDED"
    return int(failed)


def stop_components(options: argparse.Namespace) -> None:
    """`component stop`."""
    with connect(options.root) as client:
        for name in _split([options.names]):
            print(f"{name}: {client.stop_component(component_name=name).stop_status}")


def show_logs(options: argparse.Namespace) -> None:
    """`logs get`: prints log files; with --follow, what is appended to the last one until Ctrl-C."""
    paths = options.log_file or [options.root / "logs" / "greengrass.log"]
    try:
        for path in paths[:-1]:
            sys.stdout.write(path.read_text(errors="replace"))
        _show(paths[-1], follow=options.follow)
    except OSError as error:
        raise CliError(str(error)) from error


def _show(path: Path, *, follow: bool) -> None:
    file = path.open(errors="replace")
    try:
        while True:
            sys.stdout.write(file.read())
            sys.stdout.flush()
            if not follow:
                return
            if _is_open(path, file.fileno()):
                time.sleep(_FOLLOW_SECONDS)
            else:
                sys.stdout.write(file.read())
                file.close()
                file = path.open(errors="replace")
    finally:
        file.close()


def _is_open(path: Path, descriptor: int) -> bool:
    """Whether a name still means the open file; true while a rotation has left no file of that name."""
    try:
        return path.stat().st_ino == os.fstat(descriptor).st_ino
    except FileNotFoundError:
        return True


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

    def show(event: Any) -> None:
        if event.json_message:
            _print_message(event.json_message.context.topic, json.dumps(event.json_message.message))
        else:
            _print_message(event.binary_message.context.topic, event.binary_message.message.decode(errors="replace"))

    with connect(options.root) as client:
        client.subscribe_to_topic(topic=options.topic, on_stream_event=show, on_stream_error=_failed)
        _until_interrupted(options.topic)


def iot_publish(options: argparse.Namespace) -> None:
    """`iotcore pub`."""
    with connect(options.root) as client:
        client.publish_to_iot_core(topic_name=options.topic, qos=options.qos, payload=options.message.encode())


def iot_subscribe(options: argparse.Namespace) -> None:
    """`iotcore sub`: prints messages until Ctrl-C."""

    def show(event: Any) -> None:
        _print_message(event.message.topic_name, (event.message.payload or b"").decode(errors="replace"))

    with connect(options.root) as client:
        client.subscribe_to_iot_core(
            topic_name=options.topic, qos=options.qos, on_stream_event=show, on_stream_error=_failed
        )
        _until_interrupted(options.topic)


def _until_interrupted(topic: str) -> None:
    print(f"Subscribed to {topic}; Ctrl-C ends", file=sys.stderr, flush=True)
    threading.Event().wait()


def _failed(error: Exception) -> bool:
    print(f"scripts/core: {error}", file=sys.stderr, flush=True)
    return True


def _print_message(topic: str, text: str) -> None:
    print(f"{topic} {text}", flush=True)


def _print_component(component: Any) -> None:
    print(f"Component Name: {component.component_name}")
    print(f"    Version: {component.version}")
    print(f"    State: {component.state}")
    print(f"    Configuration: {json.dumps(component.configuration)}")


def _split(items: list[str]) -> list[str]:
    return [part.strip() for item in items for part in item.split(",") if part.strip()]


def _absolute(folder: Path | None) -> str | None:
    return str(folder.resolve()) if folder else None


def _read_json(given: str) -> Any:
    """JSON text, or the content of a file of that name."""
    try:
        return json.loads(given if given.lstrip().startswith("{") else Path(given).read_text())
    except (OSError, ValueError) as error:
        raise CliError(f"--update-config: {error}") from error


Command = Callable[[argparse.Namespace], int | None]

"""The words of scripts/core: `start`, and those of greengrass-cli, spoken to a running core over its IPC socket."""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from localdev.core.client import CliError, connect
from localdev.core.foreground import serve
from localdev.core.profiles import Profile

DEFAULT_ROOT = Path(__file__).resolve().parents[3] / ".localdev" / "core"
CALL_SECONDS = 30.0
_FOLLOW_SECONDS = 0.2


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; the exit code is 1 if it failed and 2 if it was misspelt."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options) or 0)
    except CliError as error:
        print(f"scripts/core: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/core",
        description="A local Greengrass core: a stand-in for development, never for production.",
    )
    parser.add_argument("--root", type=Path, default=DEFAULT_ROOT, help="folder of the core (%(default)s)")
    words = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_start(words)
    _add_deployment(_group(words, "deployment", "create deployments and ask for their status"))
    _add_component(_group(words, "component", "list, look at, restart and stop components"))
    _add_logs(_group(words, "logs", "show log files"))
    _add_messages(_group(words, "pubsub", "publish and subscribe on local topics"), iot_core=False)
    _add_messages(_group(words, "iotcore", "publish and subscribe on IoT Core topics"), iot_core=True)
    return parser


def _group(words: Any, name: str, text: str) -> Any:
    return words.add_parser(name, help=text).add_subparsers(required=True, metavar="ACTION")


def _add_start(words: Any) -> None:
    start = words.add_parser("start", help="run a core in the foreground until Ctrl-C")
    start.add_argument("--root", type=Path, default=argparse.SUPPRESS, help="folder of the core")
    start.add_argument("--profile", choices=[profile.value for profile in Profile], default="java")
    start.add_argument("--thing-name", default="laptop")
    start.add_argument("--mqtt", metavar="URL", help="broker that stands in for IoT Core: mqtt://host:port")
    start.add_argument("--region", default="us-east-1")
    start.add_argument("--log-format", choices=["TEXT", "JSON"], default="TEXT")
    start.add_argument("--secrets", type=Path, metavar="FILE", help="JSON object of secrets by name")
    start.set_defaults(run=serve)


def _add_deployment(words: Any) -> None:
    create = words.add_parser("create", help="deploy components from local recipes and artifacts")
    create.add_argument("-r", "--recipeDir", type=Path)
    create.add_argument("-a", "--artifactDir", type=Path)
    create.add_argument("-m", "--merge", action="append", default=[], metavar="NAME=VERSION[,...]")
    create.add_argument("--remove", action="append", default=[], metavar="NAME[,...]")
    create.add_argument("-c", "--update-config", metavar="JSON|FILE", help='{"NAME": {"MERGE": {}, "RESET": []}}')
    create.set_defaults(run=_create_deployment)
    status = words.add_parser("status", help="status of one deployment")
    status.add_argument("-i", "--deploymentId", required=True)
    status.set_defaults(run=_deployment_status)
    words.add_parser("list", help="the latest deployments").set_defaults(run=_list_deployments)


def _add_component(words: Any) -> None:
    words.add_parser("list", help="every component").set_defaults(run=_list_components)
    for name, run in (("details", _component_details), ("restart", _restart), ("stop", _stop)):
        word = words.add_parser(name)
        word.add_argument("-n", "--name" if name == "details" else "--names", dest="names", required=True)
        word.set_defaults(run=run)


def _add_logs(words: Any) -> None:
    get = words.add_parser("get", help="show log files")
    get.add_argument("-lf", "--log-file", action="append", type=Path, default=[])
    get.add_argument("-fol", "--follow", action="store_true")
    get.set_defaults(run=_show_logs)


def _add_messages(words: Any, *, iot_core: bool) -> None:
    publish = words.add_parser("pub")
    publish.add_argument("-t", "--topic", required=True)
    publish.add_argument("-m", "--message", required=True)
    publish.set_defaults(run=_iot_publish if iot_core else _publish)
    subscribe = words.add_parser("sub", help="print messages until Ctrl-C")
    subscribe.add_argument("-t", "--topic", required=True)
    subscribe.set_defaults(run=_iot_subscribe if iot_core else _subscribe)
    if iot_core:
        for word in (publish, subscribe):
            word.add_argument("-q", "--qos", choices=["0", "1"], default="0")


def _create_deployment(options: argparse.Namespace) -> None:
    merge = {}
    for item in _split(options.merge):
        name, equals, version = item.partition("=")
        if not equals:
            raise CliError(f"--merge {item}: expected NAME=VERSION")
        merge[name] = version
    with connect(options.root) as client:
        response = client.create_local_deployment(
            root_component_versions_to_add=merge,
            root_components_to_remove=_split(options.remove),
            component_to_configuration=_read_json(options.update_config) if options.update_config else None,
            recipe_directory_path=str(options.recipeDir.resolve()) if options.recipeDir else None,
            artifacts_directory_path=str(options.artifactDir.resolve()) if options.artifactDir else None,
        )
    print(f"Local deployment submitted! Deployment Id: {response.deployment_id}")


def _split(items: list[str]) -> list[str]:
    return [part.strip() for item in items for part in item.split(",") if part.strip()]


def _read_json(given: str) -> Any:
    """JSON text, or the content of a file of that name."""
    try:
        return json.loads(given if given.lstrip().startswith("{") else Path(given).read_text())
    except (OSError, ValueError) as error:
        raise CliError(f"--update-config: {error}") from error


def _deployment_status(options: argparse.Namespace) -> None:
    with connect(options.root) as client:
        deployment = client.get_local_deployment_status(deployment_id=options.deploymentId).deployment
    print(f"{deployment.deployment_id}: {deployment.status}")
    details = deployment.deployment_status_details
    if details:
        print(f"Detailed Status: {details.detailed_deployment_status}")
        if details.deployment_failure_cause:
            print(f"Failure Cause: {details.deployment_failure_cause}")


def _list_deployments(options: argparse.Namespace) -> None:
    with connect(options.root) as client:
        for deployment in client.list_local_deployments().local_deployments:
            print(f"{deployment.deployment_id}: {deployment.status}")


def _list_components(options: argparse.Namespace) -> None:
    with connect(options.root) as client:
        for component in client.list_components().components:
            _print_component(component)


def _component_details(options: argparse.Namespace) -> None:
    with connect(options.root) as client:
        _print_component(client.get_component_details(component_name=options.names).component_details)


def _print_component(component: Any) -> None:
    print(f"Component Name: {component.component_name}")
    print(f"    Version: {component.version}")
    print(f"    State: {component.state}")
    print(f"    Configuration: {json.dumps(component.configuration)}")


def _restart(options: argparse.Namespace) -> int:
    failed = False
    with connect(options.root) as client:
        for name in _split([options.names]):
            answer = client.restart_component(component_name=name)
            print(f"{name}: {answer.restart_status}{f' ({answer.message})' if answer.message else ''}")
            failed |= answer.restart_status != "SUCCEEDED"
    return int(failed)


def _stop(options: argparse.Namespace) -> None:
    with connect(options.root) as client:
        for name in _split([options.names]):
            print(f"{name}: {client.stop_component(component_name=name).stop_status}")


def _show_logs(options: argparse.Namespace) -> None:
    paths = options.log_file or [options.root / "logs" / "greengrass.log"]
    files = []
    for path in paths:
        try:
            files.append(path.open(errors="replace"))
        except OSError as error:
            raise CliError(str(error)) from error
    while True:
        for file in files:
            sys.stdout.write(file.read())
        sys.stdout.flush()
        if not options.follow:
            break
        for index, (path, file) in enumerate(zip(paths, files, strict=True)):
            if path.exists() and path.stat().st_ino != _inode(file):
                sys.stdout.write(file.read())
                file.close()
                files[index] = path.open(errors="replace")
        time.sleep(_FOLLOW_SECONDS)
    for file in files:
        file.close()

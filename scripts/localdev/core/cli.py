"""The words of scripts/core: `start`, and those of greengrass-cli, spoken to a running core over its IPC socket."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from localdev.core import commands, log_commands, message_commands
from localdev.core.client import CliError
from localdev.core.profiles import CLI, Profile
from localdev.core.resolve import BUILTIN_VERSIONS

DEFAULT_ROOT = Path(__file__).resolve().parents[3] / ".localdev" / "core"


def main(arguments: list[str] | None = None) -> int:
    """Runs one command. The exit code is 1 if it failed, 2 if it was misspelt, 141 if nobody reads what it prints."""
    options = _parser().parse_args(arguments)
    try:
        code = options.run(options) or 0
        sys.stdout.flush()
    except CliError as error:
        print(f"scripts/core: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # Python flushes stdout once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    except KeyboardInterrupt:
        return 130
    return int(code)


def _parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(add_help=False)
    root.add_argument("--root", type=Path, default=argparse.SUPPRESS, help=f"folder of the core ({DEFAULT_ROOT})")
    parser = argparse.ArgumentParser(
        prog="scripts/core",
        description="A local Greengrass core: a stand-in for development, never for production.",
    )
    parser.add_argument("--ggcRootPath", dest="root", type=Path, default=DEFAULT_ROOT, help="as --root")
    parser.add_argument("-V", "--version", action="version", version=f"scripts/core, as {CLI} {BUILTIN_VERSIONS[CLI]}")
    words = parser.add_subparsers(required=True, metavar="COMMAND")
    start = words.add_parser("start", help="run a core in the foreground until Ctrl-C", parents=[root])
    _add_start(start)
    for name, text, run in (
        ("status", "whether a core runs, and how it is", commands.core_status),
        ("stop", "end the core that start runs, wherever that is", commands.stop_core),
        ("get-debug-password", "a password as the debug console's", commands.debug_password),
    ):
        words.add_parser(name, help=text, parents=[root]).set_defaults(run=run)
    password = words.add_parser("password", help="the password that a component made for itself", parents=[root])
    password.add_argument("component", metavar="NAME")
    password.set_defaults(run=commands.component_password)
    words.add_parser("help", help="this text").set_defaults(run=lambda _options: parser.print_help())
    _add_deployment(_Group(words, "deployment", "create deployments and ask for their status", root))
    _add_component(_Group(words, "component", "list, look at, restart and stop components", root))
    _add_logs(_Group(words, "logs", "show log files", root))
    _add_pubsub(_Group(words, "pubsub", "publish and subscribe on local topics", root))
    _add_iotcore(_Group(words, "iotcore", "publish and subscribe on IoT Core topics", root))
    return parser


class _Group:
    """Words under a word, as `deployment create`; each takes --root."""

    def __init__(self, words: Any, name: str, text: str, root: argparse.ArgumentParser) -> None:
        self._words = words.add_parser(name, help=text).add_subparsers(required=True, metavar="ACTION")
        self._root = root

    def add(self, name: str, text: str, run: commands.Command) -> argparse.ArgumentParser:
        word: argparse.ArgumentParser = self._words.add_parser(name, help=text, parents=[self._root])
        word.set_defaults(run=run)
        return word


def _add_start(start: argparse.ArgumentParser) -> None:
    start.add_argument("--profile", choices=[profile.value for profile in Profile], default="java")
    start.add_argument("--thing-name", default="laptop", metavar="NAME")
    start.add_argument(
        "--mqtt", metavar="URL", help="broker that stands in for IoT Core, mqtt://host:port; none; default: its own"
    )
    start.add_argument(
        "--poll",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="how often it looks for a new local deployment (%(default)s; a device: 15)",
    )
    start.add_argument("--region", default="us-east-1")
    start.add_argument("--log-format", choices=["TEXT", "JSON"], default="TEXT")
    start.add_argument("--secrets", type=Path, metavar="FILE", help="JSON object of secrets by name")
    start.add_argument(
        "--user",
        metavar="USER[:GROUP]",
        help="whom components run as, through sudo, where the core is root (ggc_user, else nobody)",
    )
    start.set_defaults(run=_start)


def _start(options: argparse.Namespace) -> None:
    from localdev.core.foreground import serve  # a whole core, which other commands need not wait for

    serve(options)


def _add_deployment(group: _Group) -> None:
    create = group.add("create", "deploy components from local recipes and artifacts", commands.create_deployment)
    create.add_argument("-r", "--recipeDir", dest="recipe_dir", type=Path, metavar="DIR")
    create.add_argument("-a", "--artifactDir", dest="artifact_dir", type=Path, metavar="DIR")
    create.add_argument("-m", "--merge", action="append", default=[], metavar="NAME=VERSION[,...]")
    create.add_argument("--remove", action="append", default=[], metavar="NAME[,...]")
    create.add_argument("-c", "--update-config", metavar="JSON|FILE", help='{"NAME": {"MERGE": {}, "RESET": []}}')
    create.add_argument("-g", "--groupId", dest="group_id", metavar="GROUP", help="accepted; there are no groups here")
    create.add_argument(
        "--runWith", dest="run_with", action="append", default=[], metavar="NAME:posixUser=USER[:GROUP]"
    )
    create.add_argument("--systemLimits", dest="system_limits", metavar="JSON|FILE", help="accepted, limits nothing")
    policies = ("ROLLBACK", "DO_NOTHING")
    create.add_argument("-fp", "--failure-handling-policy", dest="failure_handling_policy", choices=policies)
    create.add_argument(
        "--wait", nargs="?", type=float, const=300.0, metavar="SECONDS", help="until it has ended (%(const)s)"
    )
    for name, text, run in (
        ("status", "status of one deployment", commands.deployment_status),
        ("cancel", "end a deployment", commands.cancel_deployment),
    ):
        group.add(name, text, run).add_argument(
            "-i", "--deploymentId", dest="deployment_id", required=True, metavar="ID"
        )
    group.add("list", "the latest deployments", commands.list_deployments)


def _add_component(group: _Group) -> None:
    group.add("list", "every component", commands.list_components)
    details = group.add("details", "one component", commands.component_details)
    details.add_argument("-n", "--name", dest="names", required=True, metavar="NAME")
    for name, run in (("restart", commands.restart_components), ("stop", commands.stop_components)):
        word = group.add(name, f"{name} components", run)
        word.add_argument("-n", "--names", required=True, metavar="NAME[,...]")


def _add_logs(group: _Group) -> None:
    get = group.add("get", "show log files", log_commands.show_logs)
    get.add_argument("-lf", "--log-file", action="append", type=Path, default=[], metavar="FILE")
    get.add_argument("-ld", "--log-dir", action="append", type=Path, default=[], metavar="DIR")
    get.add_argument("-f", "--filter", action="append", default=[], metavar="KEY=VALUE|REGEX[,...]")
    for short, name in (("-b", "before"), ("-a", "after")):
        get.add_argument(short, f"--{name}", type=int, default=0, metavar="N", help=f"lines {name} one that is picked")
    for short, name in (("-nc", "no-color"), ("-v", "verbose"), ("-s", "syslog")):
        get.add_argument(short, f"--{name}", action="store_true", help="accepted, changes nothing")
    for short, name in (("-m", "max-log-queue-size"), ("-t", "time-window")):
        get.add_argument(short, f"--{name}", help="accepted, changes nothing")
    get.add_argument("-fol", "--follow", action="store_true", help="go on until Ctrl-C")
    files = group.add("list-log-files", "names of log files", log_commands.list_log_files)
    files.add_argument("-ld", "--log-dir", action="append", type=Path, default=[], metavar="DIR")
    group.add("list-keywords", "fields of a log line", log_commands.list_keywords)


def _add_pubsub(group: _Group) -> None:
    publish = group.add("pub", "publish one message", message_commands.publish)
    publish.add_argument("-m", "--message", required=True)
    subscribe = group.add("sub", "print messages until Ctrl-C", message_commands.subscribe)
    for word in (publish, subscribe):
        word.add_argument("-t", "--topic", required=True)


def _add_iotcore(group: _Group) -> None:
    publish = group.add("pub", "publish one message", message_commands.iot_publish)
    publish.add_argument("-m", "--message", required=True)
    subscribe = group.add("sub", "print messages until Ctrl-C", message_commands.iot_subscribe)
    for word in (publish, subscribe):
        word.add_argument("-t", "--topic", required=True)
        word.add_argument("-q", "--qos", choices=["0", "1"], default="0")

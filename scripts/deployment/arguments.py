"""The command line of scripts/deploy."""

import argparse
import re
import shutil
import textwrap
from pathlib import Path

from deployment import UsageError, config_file
from deployment.configuration import Update

COMPONENTS = Path(__file__).resolve().parents[2] / "components"
NAME = r"[A-Za-z0-9._-]{1,128}"
VERSION = r"\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?"
EPILOG = """\
FILE (YAML or JSON) maps component names to configuration, which is merged into
what is deployed:
  edgeml.CameraCapture: {fps: 5}
or says what is merged and what is reset to the recipe's defaults, as JSON
pointers ("" is everything):
  edgeml.Inferencer: {merge: {pipelines: {}}, reset: [/backend]}

rollback deploys again what was there before, configuration included: without
--to, the newest earlier deployment that succeeded on its devices. What it came
back from is not gone back to by another rollback.

Exit codes: 0 every device has it (or, with --dry-run, it could be done), 1 it
failed or not every device has it yet, 2 arguments or configuration are wrong,
130 stopped with Ctrl-C. A deployment that was made goes on in any case.
"""
# What does not go with an action, by the attribute that argparse gives it.
DEPLOY_ONLY = {"component", "remove", "config", "bucket", "builds"}
REFUSED = {
    "deploy": {"to"},
    "status": {*DEPLOY_ONLY, "to", "dry_run", "yes", "timeout", "interval"},
    "rollback": DEPLOY_ONLY,
}


class Help(argparse.RawDescriptionHelpFormatter):
    """80 columns at the most: argparse goes by the terminal's width, and leaves descriptions as they are."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=min(80, shutil.get_terminal_size().columns) - 2)


def wrapped(text: str) -> str:
    return "\n\n".join(textwrap.fill(" ".join(part.split()), 78) for part in text.strip().split("\n\n"))


def parser(description: str) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser("deploy", description=wrapped(description), epilog=EPILOG, formatter_class=Help)
    made.add_argument("action", nargs="?", choices=["deploy", "status", "rollback"], default="deploy")
    made.add_argument(
        "--thing-group", required=True, type=_group, metavar="G", help="the name of an AWS IoT thing group"
    )
    made.add_argument(
        "--component",
        action="append",
        default=[],
        type=_component,
        metavar="NAME[=VERSION]",
        help="what to deploy; without VERSION, as it is built here; default: everything that is built here",
    )
    made.add_argument(
        "--remove", action="append", default=[], type=_name, metavar="NAME", help="take it off the devices"
    )
    made.add_argument(
        "--config", type=_config, default={}, metavar="FILE", help="configuration of components, see below"
    )
    made.add_argument("--bucket", type=_bucket, help="for artifacts; default: edgeml-components-<region>-<account>")
    made.add_argument(
        "--builds", type=Path, default=COMPONENTS, metavar="DIR", help="where greengrass-build/ folders lie"
    )
    made.add_argument("--to", default="", metavar="ID", help="rollback: the deployment to go back to")
    made.add_argument("--region", help="default: AWS_REGION, or the AWS configuration's")
    made.add_argument("--dry-run", action="store_true", help="show what would change, change nothing")
    made.add_argument("--yes", action="store_true", help="do not ask")
    made.add_argument("--timeout", type=_seconds, default=600.0, metavar="S", help="seconds to wait for the devices")
    made.add_argument(
        "--interval", type=_interval, default=2.0, metavar="S", help="seconds between looks at the devices"
    )
    return made


def parse(description: str, arguments: list[str] | None) -> argparse.Namespace:
    """SystemExit(2) says what is wrong with them."""
    made = parser(description)
    options = made.parse_args(arguments)
    for name in sorted(REFUSED[options.action]):
        if getattr(options, name) != made.get_default(name):
            made.error(f"--{name.replace('_', '-')} does not go with {options.action}")
    names = [name for name, _ in options.component] + options.remove
    if twice := sorted({name for name in names if names.count(name) > 1}):
        made.error(f"{', '.join(twice)}: named more than once by --component and --remove")
    return options


def _component(text: str) -> tuple[str, str]:
    name, equals, version = text.partition("=")
    if equals and not re.fullmatch(VERSION, version):
        raise argparse.ArgumentTypeError(f"{text!r}: expected NAME or NAME=VERSION with a version like 1.2.3")
    return _name(name), version


def _name(text: str) -> str:
    if not re.fullmatch(NAME, text):
        raise argparse.ArgumentTypeError(f"{text!r} is not the name of a component, such as edgeml.CameraCapture")
    return text


def _config(text: str) -> dict[str, Update]:
    try:
        return config_file.read(Path(text))
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _group(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9:_-]{1,128}", text) or text.startswith("arn:"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a thing group's name (a name, not an ARN)")
    return text


def _bucket(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a bucket's name (a name, not a URL or ARN)")
    return text


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r}: expected seconds, 0 or more")
    return value


def _interval(text: str) -> float:
    if not (value := _seconds(text)):
        raise argparse.ArgumentTypeError(f"{text!r}: expected more than 0 seconds")
    return value

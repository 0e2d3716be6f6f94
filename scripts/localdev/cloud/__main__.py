"""`scripts/cloud start`: a local cloud in the foreground until SIGINT or SIGTERM."""

import argparse
import shlex
import signal
import sys
import threading
from pathlib import Path

from localdev.cloud.cloud import TEMPLATE, LocalCloud

SIGNING_KEY = "a development key of a local cloud"


def main(arguments: list[str] | None = None) -> int:
    """Runs until it is told to end. The exit code is 1 if it cannot start."""
    parser = argparse.ArgumentParser(
        prog="scripts/cloud",
        description="A local stand-in for AWS: its APIs, IoT Core's broker, the template with its functions.",
    )
    start = parser.add_subparsers(required=True, metavar="COMMAND").add_parser("start", help="run until Ctrl-C")
    start.add_argument("--template", type=Path, default=TEMPLATE, help="the stack that it runs (%(default)s)")
    start.add_argument("--empty", action="store_true", help="APIs and broker alone, without a stack")
    start.add_argument("--mqtt", default="", metavar="URL", help="a broker that runs already, mqtt://host:port")
    options = parser.parse_args(arguments)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    template = None if options.empty else options.template
    parameters = {"SigningKeySecret": SIGNING_KEY} if template == TEMPLATE else {}
    try:
        with LocalCloud(template, parameters, mqtt_url=options.mqtt) as cloud:
            _show(cloud)
            stop.wait()
            print("Stopping", file=sys.stderr, flush=True)
    except OSError as error:
        print(f"scripts/cloud: {error}", file=sys.stderr)
        return 1
    return 0


def _show(cloud: LocalCloud) -> None:
    """What other programs need, as lines that a shell can take."""
    print("# A local cloud: a stand-in for development, never for production. Ctrl-C or SIGTERM ends it.")
    print(f"# IoT Core: scripts/core start --mqtt {cloud.mqtt_url}")
    for name, value in sorted(cloud.environment().items()):
        print(f"export {name}={shlex.quote(value)}")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())

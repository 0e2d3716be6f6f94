"""`scripts/core start`: a core in the foreground until SIGINT or SIGTERM."""

import argparse
import asyncio
import signal
import sys

from localdev.core.client import CliError, publish_credentials, withdraw_credentials
from localdev.core.engine import CoreError, Engine, Settings
from localdev.core.profiles import CLI, Profile

BANNER = """\
A local Greengrass core ({profile} profile): a stand-in for development, never for production.
  root    {root}
  socket  {socket}
  logs    {root}/logs
  {note}
Ctrl-C stops it and every component."""


def serve(options: argparse.Namespace) -> None:
    """Runs a core as the options say. CliError if it cannot start."""
    settings = Settings(
        root=options.root,
        profile=Profile(options.profile),
        thing_name=options.thing_name,
        region=options.region,
        mqtt_url=options.mqtt,
        secrets=options.secrets,
        log_format=options.log_format,
        user=options.user,
    )
    try:
        asyncio.run(_serve(settings))
    except (CoreError, OSError, ValueError) as error:
        raise CliError(str(error)) from error


async def _serve(settings: Settings) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    engine = Engine(settings)
    try:
        await engine.start()
        publish_credentials(engine.root, engine.socket, engine.token(CLI))
        print(
            BANNER.format(profile=engine.profile, root=engine.root, socket=engine.socket, note=engine.users.note),
            flush=True,
        )
        await stop.wait()
        print("Stopping", file=sys.stderr, flush=True)
    finally:
        withdraw_credentials(engine.root)
        await engine.close()

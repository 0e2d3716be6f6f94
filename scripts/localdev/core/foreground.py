"""`scripts/core start`: a core in the foreground until SIGINT or SIGTERM."""

import argparse
import asyncio
import contextlib
import os
import signal
import sys

from localdev.core.client import CliError, publish_credentials, withdraw_credentials
from localdev.core.engine import CoreError, Engine
from localdev.core.message_commands import ending
from localdev.core.profiles import CLI, Profile
from localdev.core.state import Settings

BANNER = """\
A local Greengrass core ({profile} profile): a stand-in for development, never for production.
  root    {root}
  socket  {socket}
  logs    {root}/logs
  IoT     {iot}
  {note}
{ending} stops it and every component."""
SETTLE_SECONDS = 1.0  # as on a device


def serve(options: argparse.Namespace) -> None:
    """Runs a core as the options say. CliError if it cannot start."""
    with contextlib.ExitStack() as running:
        try:
            asyncio.run(_serve(_settings(options, _broker(options.mqtt, running))))
        except (CoreError, OSError, ValueError) as error:
            raise CliError(str(error)) from error


def _broker(wanted: str | None, running: contextlib.ExitStack) -> str | None:
    """URL of the broker that stands in for IoT Core; unless one is wanted, one of our own."""
    if wanted:
        return None if wanted == "none" else wanted
    from localdev.cloud.broker import Broker  # slow to import

    return running.enter_context(Broker()).url


def _settings(options: argparse.Namespace, mqtt_url: str | None) -> Settings:
    return Settings(
        root=options.root,
        profile=Profile(options.profile),
        thing_name=options.thing_name,
        region=options.region,
        mqtt_url=mqtt_url,
        secrets=options.secrets,
        log_format=options.log_format,
        user=options.user,
        poll_seconds=options.poll,
        settle_seconds=SETTLE_SECONDS,
    )


async def _serve(settings: Settings) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    engine = await asyncio.to_thread(Engine, settings)
    core = engine.state
    try:
        await engine.start()
        publish_credentials(core.root, core.socket, core.token(CLI), os.getpid())
        how = "Ctrl-C" if ending() == "Ctrl-C" else f"`scripts/core stop --root {core.root}`"
        facts = {
            "profile": core.profile,
            "root": core.root,
            "socket": core.socket,
            "note": core.users.note,
        }
        print(BANNER.format(**facts, iot=settings.mqtt_url or "offline", ending=how), flush=True)
        await stop.wait()
        print("Stopping", file=sys.stderr, flush=True)
    finally:
        withdraw_credentials(core.root)
        await engine.close()

"""A component of the tests' own, which does what its configuration and its messages say."""

from pathlib import Path
from typing import Any

from edgeml.ending import STOP_TIMEOUT_S
from support import Standalone

COMPONENT = """
    import os, sys, threading, time
    from pathlib import Path
    import msgspec
    from edgeml import ending
    from edgeml.component import Component, run
    from edgeml.errors import DisconnectedError, SourceError

    class Config(msgspec.Struct):
        word: str = "hello"
        crash: str = ""
        foreign: str = ""
        stop_s: float = 0
        reconfigure_s: float = 0
        parts: int = 0

    class Echo(Component[Config]):
        name, version = "edgeml.Echo", "1.0.0"

        def start(self, config):
            self.config = config
            if config.crash == "start":
                raise SourceError("no such thing")
            for number in range(config.parts):
                self.context.health.count(f"a.counter.with.a.long.name.{number:04d}")
            if config.crash == "thread":
                self.context.spawn("worker", lambda: 1 / 0)
            if config.crash == "foreign thread":
                threading.Thread(target=lambda: 1 / 0, name="of a library", daemon=True).start()
            if config.crash == "disconnected":
                self.context.spawn("worker", self.lose)
            1 / (config.foreign != "start")
            self.context.ipc.subscribe("say/+", self.say)
            self.context.ipc.subscribe_iot("cloud/#", lambda _, data: self.context.ipc.publish_iot("back", data))

        def lose(self):
            raise DisconnectedError("the socket is gone")

        def say(self, topic, payload):
            if payload == b'"boom"':
                raise ValueError("bad message")
            if payload == b'"slow"':
                self.context.ipc.publish("slow", b"1")
                while not Path("go").exists():
                    time.sleep(0.02)
            self.context.ipc.publish("said", payload)

        def reconfigure(self, config):
            self.context.ipc.publish("changing", b"1")
            1 / (config.foreign != "reconfigure")
            time.sleep(config.reconfigure_s)
            self.config = config
            self.context.ipc.publish("changed", msgspec.json.encode(config.word))

        def stop(self):
            1 / (self.config.foreign != "stop")
            time.sleep(self.config.stop_s)
            self.context.ipc.publish("stopped", b"1")

    ending.STOP_TIMEOUT_S = float(os.environ.get("STOP_S", ending.STOP_TIMEOUT_S))
    raise SystemExit(run(Echo, Config))
"""


def echo(package: Path, *, may_stop_s: float = STOP_TIMEOUT_S, **config: Any) -> Standalone:
    """`may_stop_s`: instead of the seconds that a component has for its end."""
    return Standalone(package / "echo_component.py", config, package / "w", env={"STOP_S": str(may_stop_s)})

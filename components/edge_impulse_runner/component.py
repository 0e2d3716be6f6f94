"""Lives of the runner one after the other, and the commands that reach the one of the moment."""

import logging
import threading

from edge_impulse_runner import __version__
from edge_impulse_runner.config import Config
from edge_impulse_runner.life import Life
from edge_impulse_runner.models import ModelFinder
from edge_impulse_runner.process import sweep
from edge_impulse_runner.s3_cache import S3Cache
from edge_impulse_runner.senses import Senses
from edgeml.component import Component, Context
from edgeml.edge_impulse.cache import Cache, FileCache
from edgeml.edge_impulse.device import Topics, default_mac, device_name
from edgeml.edge_impulse.listener import CommandListener, Device
from edgeml.edge_impulse.parameters import Settings, interpret
from edgeml.edge_impulse.reporter import TIMES, Reporter, s3_prefix
from edgeml.edge_impulse.studio import Studio
from edgeml.log import kv
from edgeml.outbox import Outbox
from edgeml.secrets import secret_value

log = logging.getLogger(__name__)

JOIN_TIMEOUT_S = 1.0


class EdgeImpulseRunner(Component[Config]):
    """Runs an Edge Impulse .eim model and relays what it says."""

    name = "edgeml.EdgeImpulseRunner"
    version = __version__

    _config: Config
    _settings: Settings
    _topics: Topics
    _life: Life
    _outbox: Outbox

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._senses = Senses(context.ipc, context.health)
        self._lock = threading.Lock()
        self._commands = CommandListener(context)
        self._s3: S3Cache | None = None

    def start(self, config: Config) -> None:
        settings = interpret(config.parameters)
        context = self.context
        sweep(context.work)
        topics(config, settings)
        self._outbox = Outbox(
            context.work / "outbox.spool",
            context.ipc,
            context.health,
            max_bytes=config.spool_bytes,
            qos=settings.qos,
            times=TIMES,
            clock_wait_s=config.clock_wait_s,
        )
        self._apply(config, settings)
        self._thread = context.spawn("runner", self._run)

    def reconfigure(self, config: Config) -> None:
        if config == self._config:
            return
        old = self._life
        self._apply(config, interpret(config.parameters))
        old.ask_to_stop()

    def stop(self) -> None:
        self._life.ask_to_stop()
        self._thread.join(JOIN_TIMEOUT_S)
        if self._s3 is not None:
            self._s3.close()
        self._outbox.close()

    def _apply(self, config: Config, settings: Settings) -> None:
        for note in settings.notes:
            log.info("Parameters: %s", note)
        named = topics(config, settings)
        with self._lock:
            self._config, self._settings = config, settings
            self._topics = named
            self._outbox.configure(max_bytes=config.spool_bytes, qos=settings.qos, clock_wait_s=config.clock_wait_s)
            if self._s3 is not None:
                self._s3.close()
            self._s3 = self._s3_cache() if settings.s3_bucket else None
            self._life = self._new_life()
            topic = self._topics.command_input
        log.info("topics %s", kv(inference=self._topics.inference, commands=topic))
        device = Device(self.context.work / "last-command", self._command)
        self._commands.listen({topic: device}, at_once=True)  # before the new life says that it has started

    def _run(self) -> None:
        while not self.context.stopping.is_set():
            life = self._life
            life.run()
            with self._lock:
                if self._life is life:  # it ended by `restart`; a changed configuration has put a new one there
                    self._life = self._new_life()

    def _new_life(self) -> Life:
        config, settings, context = self._config, self._settings, self.context
        caches: dict[str, Cache] = {}
        if settings.cache_folder is not None:
            ledger = context.work / "cache.ledger"
            bounds = {"max_items": config.cache.max_items, "max_bytes": config.cache.max_bytes}
            caches["local"] = FileCache(settings.cache_folder, ledger, **bounds)
        if self._s3 is not None:
            caches["s3"] = self._s3
        reporter = Reporter(
            settings,
            self._topics,
            self._outbox.put,
            health=context.health,
            max_bytes=context.ipc.max_iot_bytes,
            restart=self._restart,
            caches=caches,
        )
        finder = ModelFinder(settings, config.model, root=context.root, work=context.work, studio=self._studio)
        return Life(config, settings, finder, lambda hello: self._senses.open(hello, config), reporter, context.health)

    def _studio(self) -> Studio:
        return Studio(secret_value(self.context.ipc, self._settings.secret_id, self._settings.secret_key))

    def _s3_cache(self) -> S3Cache:
        cache = self._config.cache
        return S3Cache(
            self._settings.s3_bucket,
            lambda: s3_prefix(self._life.reporter.model),
            self.context.work,
            self.context.health,
            max_items=cache.max_items,
            max_bytes=cache.max_bytes,
            spool_bytes=cache.max_bytes,
        )

    def _restart(self) -> None:
        """Not in the thread that commands arrive in: the next one must not wait until the model has ended."""
        self.context.spawn("restart", self._life.ask_to_stop, again=False)

    def _command(self, payload: bytes) -> None:
        with self._lock:
            reporter = self._life.reporter
        reporter.command(payload)


def topics(config: Config, settings: Settings) -> Topics:
    """Raises ConfigError for topics that can never work."""
    named = Topics(device_name(settings.device_name, default_mac()), config.topic_prefix)
    named.check("topic_prefix")
    return named

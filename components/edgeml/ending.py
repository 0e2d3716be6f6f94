"""The end of a process: asked for by a signal, and bounded in time whatever else goes on."""

import logging
import os
import queue
import signal
import threading
import time
from collections.abc import Callable

log = logging.getLogger("edgeml.component")

EXIT_FAILED = 1
STOP_TIMEOUT_S = 4.5  # the nucleus kills what has not ended 5 s after SIGTERM


def on_signals(ask: Callable[[], object]) -> None:
    """SIGTERM and SIGINT `ask` for the end; whatever the main thread is doing then, the process ends in time.

    The handler only puts into queues, which is safe where taking a lock is not: so must `ask`.
    """
    asked: queue.SimpleQueue[None] = queue.SimpleQueue()

    def limit() -> None:
        asked.get()
        time.sleep(STOP_TIMEOUT_S)
        _give_up()

    def stop(number: int, frame: object) -> None:
        ask()
        asked.put(None)

    threading.Thread(target=limit, name="stop-limit", daemon=True).start()
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)


def in_time(stop: Callable[[], None]) -> None:
    """Call `stop`; where it takes too long the process ends without it."""
    watchdog = threading.Timer(STOP_TIMEOUT_S, _give_up)
    watchdog.daemon = True
    watchdog.start()
    try:
        stop()
    finally:
        watchdog.cancel()


def _give_up() -> None:
    log.error("stop took longer than %s s, exiting", STOP_TIMEOUT_S)
    os._exit(EXIT_FAILED)

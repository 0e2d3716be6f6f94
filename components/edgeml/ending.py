"""The end of a process: asked for by a signal, and bounded in time whatever else goes on."""

import atexit
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable

log = logging.getLogger("edgeml.component")

EXIT_FAILED = 1
_WAITS = "stop-limit"  # the thread that waits for a signal, in Python alone
STOP_TIMEOUT_S = 4.5  # the nucleus kills what has not ended 5 s after SIGTERM


def on_signals(ask: Callable[[], object]) -> None:
    """SIGTERM and SIGINT `ask` for the end, on a thread; whatever the main one is doing, the process ends in time.

    A handler in Python would not do: it runs when the main thread comes round to it, and one that waits for an event
    may wait on where a signal came just before, or came to another thread.
    """
    told, tell = os.pipe()
    os.set_blocking(tell, False)

    def wait() -> None:
        while not set(os.read(told, 64)) & {signal.SIGTERM, signal.SIGINT}:
            pass
        ask()
        time.sleep(STOP_TIMEOUT_S)
        _give_up()

    threading.Thread(target=wait, name=_WAITS, daemon=True).start()
    signal.set_wakeup_fd(tell, warn_on_full_buffer=False)  # written to at once, in the thread that has the signal
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)


def at_last(code: Callable[[], int]) -> None:
    """After all else that is done at exit, end at once with `code` where threads still run.

    Python would take threads that come back from C++ out of it by force, which C++ answers by aborting the process.
    And it would restore what signals do at first: a second SIGTERM, as sudo and a core both send one, would be the end.
    """

    def end() -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        if any(thread.name not in (threading.main_thread().name, _WAITS) for thread in threading.enumerate()):
            logging.shutdown()
            sys.stdout.flush()
            os._exit(code())

    atexit.register(end)


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

"""The component, with a kill -9 at the first thing it does to the disk in $KILL_IN.

$KILL_IN is the name of a step of an installation. Starting another process counts as well: `probe` does little else.
"""

import logging
import os
import runpy
import signal
import sys
from typing import Any

CHANGES = {
    "os.rename",
    "os.remove",
    "os.mkdir",
    "os.rmdir",
    "os.symlink",
    "os.truncate",
    "os.utime",
    "subprocess.Popen",
}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
BEGINS = f"step step={os.environ['KILL_IN']} "


def main() -> None:
    begun = False
    make = logging.getLogRecordFactory()

    def record(*arguments: Any, **named: Any) -> logging.LogRecord:
        nonlocal begun
        made = make(*arguments, **named)
        begun = begun or made.getMessage().startswith(BEGINS)
        return made

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if begun and (
            event in CHANGES or (event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING)
        ):
            os.kill(os.getpid(), signal.SIGKILL)

    logging.setLogRecordFactory(record)
    sys.addaudithook(hook)


main()
runpy.run_module("model_updater", run_name="__main__")

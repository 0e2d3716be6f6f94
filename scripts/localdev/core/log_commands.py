"""`logs ...` of scripts/core."""

import argparse
import os
import sys
import time
from pathlib import Path

from localdev.core.client import CliError
from localdev.core.log_filter import Filter

_FOLLOW_SECONDS = 0.2


def show_logs(options: argparse.Namespace) -> None:
    """`logs get`: prints log files; with --follow, what is appended to the last one until Ctrl-C."""
    paths = list(options.log_file)
    for folder in options.log_dir:
        paths += sorted(folder.glob("*.log"))
    paths = paths or [options.root / "logs" / "greengrass.log"]
    chosen = Filter(options.filter, options.before, options.after)
    try:
        for path in paths[:-1]:
            sys.stdout.write(chosen.pick(path.read_text(errors="replace")))
        _show(paths[-1], chosen, follow=options.follow)
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        raise CliError(str(error)) from error


def list_log_files(options: argparse.Namespace) -> None:
    """`logs list-log-files`."""
    folders = options.log_dir or [options.root / "logs"]
    files = sorted(path for folder in folders for path in folder.glob("*.log"))
    for path in files:
        print(path)
    print(f"Total {len(files)} files found." if files else "No log file found.")


def list_keywords(_options: argparse.Namespace) -> None:
    """`logs list-keywords`."""
    print("Suggested keywords for Greengrass log format:")
    print("\n".join(f"{word}=$str" for word in ("level", "thread", "loggerName", "eventType", "serviceName", "error")))


def _show(path: Path, chosen: Filter, *, follow: bool) -> None:
    file = path.open(errors="replace")
    try:
        while True:
            sys.stdout.write(chosen.pick(file.read()))
            sys.stdout.flush()
            if not follow:
                return
            if _is_open(path, file.fileno()):
                time.sleep(_FOLLOW_SECONDS)
            else:
                sys.stdout.write(chosen.pick(file.read()))
                file.close()
                file = path.open(errors="replace")
    finally:
        file.close()


def _is_open(path: Path, descriptor: int) -> bool:
    """Whether a name still means the open file; true while a rotation has left no file of that name."""
    try:
        return path.stat().st_ino == os.fstat(descriptor).st_ino
    except FileNotFoundError:
        return True

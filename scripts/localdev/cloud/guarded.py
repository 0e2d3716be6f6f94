"""`python -P guarded.py SCRIPT ...`: a script whose AWS calls the role in $LOCAL_ROLE must grant, as in AWS.

What was asked for goes to the file $LOCAL_ASKED.
"""

import atexit
import importlib
import json
import os
import runpy
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    role = json.loads(os.environ["LOCAL_ROLE"])
    guard = runpy.run_path(str(Path(__file__).with_name("worker.py")))["guard"]
    asked = guard(role["statements"], role["region"], role["account"])
    boto3: Any = importlib.import_module("boto3")
    boto3.Session = lambda **_: boto3.DEFAULT_SESSION  # which is the one that is guarded
    atexit.register(lambda: Path(os.environ["LOCAL_ASKED"]).write_text(json.dumps(sorted(asked)), encoding="utf-8"))
    sys.argv.pop(0)
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()

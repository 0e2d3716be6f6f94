import logging
import subprocess
import sys
from pathlib import Path

import pytest

from edgeml.log import kv
from support import ROOT


def test_values_that_need_it_are_quoted_and_stay_on_one_line() -> None:
    assert kv(camera="front", fps=29.97003, path="/a b", text='say "no"\nor yes', empty="") == (
        'camera=front fps=29.97 path="/a b" text="say \\"no\\"\\nor yes" empty=""'
    )


def test_levels_go_to_their_own_stream() -> None:
    code = "from edgeml import log; import logging; log.setup(); logging.info('calm'); logging.error('urgent')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "components", capture_output=True, text=True)
    assert done.stdout == "INFO root calm\n"
    assert done.stderr == "ERROR root urgent\n"


def test_a_closed_stdout_does_not_end_the_process(tmp_path: Path) -> None:
    code = "from edgeml import log; import logging, os; log.setup(); os.close(1); logging.info('x'); os._exit(7)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT / "components", capture_output=True).returncode == 7


@pytest.mark.parametrize(("encoding", "shown"), [("utf-8", "é → \\udcff"), ("latin-1", "é \\u2192 \\udcff")])
def test_what_the_stream_cannot_hold_swallows_no_line(encoding: str, shown: str) -> None:
    code = "from edgeml import log; import logging; log.setup(); logging.info('é → %s', '\\udcff'); logging.info('b')"
    environment = {"PYTHONIOENCODING": encoding}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT / "components", env=environment, capture_output=True, encoding=encoding)
    assert done.stdout == f"INFO root {shown}\nINFO root b\n", done.stderr


def test_chatty_libraries_are_held_back() -> None:
    code = "from edgeml import log; import logging; log.setup(); logging.getLogger('botocore.x').info('noise')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "components", capture_output=True, text=True)
    assert done.stdout == ""
    assert logging.getLogger("botocore").level == logging.NOTSET  # that was the other process

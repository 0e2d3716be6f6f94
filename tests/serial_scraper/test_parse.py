import json
import subprocess
import sys

from localdev.simulators.dialects import Inference, Style, render


def parse(capture: bytes, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-P", "-m", "serial_scraper", "parse", *arguments]
    return subprocess.run(command, input=capture, capture_output=True, timeout=20)


def test_a_capture_becomes_one_json_line_per_result() -> None:
    inferences = [Inference({"dsp": 2}, {"classification": {"idle": 0.25}}), Inference({"dsp": 3}, {"anomaly": -0.5})]
    capture = "boot\r\n".join(render(inference, "D6", Style("\r\n")) for inference in inferences).rstrip()
    done = parse(capture.encode(), "--format", "edge_impulse", "--unknown")
    assert done.returncode == 0
    assert [json.loads(line)["result"] for line in done.stdout.splitlines()] == [
        inference.result for inference in inferences
    ]
    assert done.stderr.decode() == "not understood: boot\n2 records, 1 lines not understood\n"


def test_other_formats_take_their_settings_as_arguments() -> None:
    done = parse(b"1;a\nx\n2;b", "--format", "csv", "--delimiter", ";", "--column", "n:int", "--column", "s:str")
    assert done.stdout == b'{"n":1,"s":"a"}\n{"n":2,"s":"b"}\n'
    done = parse(b"v=1.5\n", "--format", "regex", "--pattern", r"v=(?P<v>\S+)", "--column", "v:float")
    assert done.stdout == b'{"v":1.5}\n'
    done = parse(b'{"a": 1}\n', "--format", "jsonl")
    assert done.stdout == b'{"a":1}\n'


def test_settings_that_cannot_work_are_told() -> None:
    for arguments in (["--format", "csv"], ["--format", "csv", "--column", "n:number"]):
        done = parse(b"", *arguments)
        assert done.returncode == 2
        assert b"column" in done.stderr

import itertools
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from edgeml.edge_impulse.device import default_mac, device_name
from localdev.simulators.dialects import Inference
from localdev.simulators.mcu import Mcu, detections
from support import Standalone, eventually

DEVICE = f"/edgeimpulse/device/{device_name('My Device', default_mac())}"
OUTPUT, METRICS = f"{DEVICE}/inference/output", f"{DEVICE}/model/metrics"
COMMAND, ANSWER = f"{DEVICE}/command/input", f"{DEVICE}/command/output"


@pytest.fixture
def link(tmp_path: Path) -> Path:
    return tmp_path / "ttyMCU"


def configuration(link: Path, parameters: dict[str, Any] | None = None, **port: Any) -> dict[str, Any]:
    return {
        "Parameters": {
            "device_name": "My Device",
            "iotcore_backoff": "0",
            "sleep_time_sec": "10",
            **(parameters or {}),
        },
        "ports": {"door": {"device": str(link), **port}},
    }


def test_results_of_a_board_are_published_as_those_of_a_linux_model(link: Path, tmp_path: Path) -> None:
    with (
        Mcu(link, detections(), interval_s=0.02),
        Standalone("serial_scraper", configuration(link), tmp_path / "work") as process,
    ):
        first, second = process.message(OUTPUT), process.message(OUTPUT, count=2)
        record = process.message("edgeml/serial/door/record")
        process.message(METRICS)
    first.pop("id"), first.pop("ts")
    boxes = [
        {"label": "face", "value": 0.99609, "x": 0, "y": 16, "width": 8, "height": 8},
        {"label": "cup", "value": 0.5, "x": 40, "y": 24, "width": 16, "height": 8},
    ]
    assert first == {
        "time_ms": 16,
        "info": "",
        "inference_count": 2,
        "total_inferences": 2,
        "time_splits": {"DSP": 2, "Classification": 14, "Anomaly": 0, "UOM": "ms"},
        "box": boxes,
        "s3_bucket": "unset",
        "s3_prefix": "unset",
    }
    assert (second["total_inferences"], second["box"][0]["x"]) == (4, 1)
    at = record.pop("at")
    assert at == pytest.approx(second["ts"] / 1000, abs=5)
    timing = {"dsp": 2, "classification": 14, "anomaly": 0}
    result = {"bounding_boxes": boxes}
    assert record == {"port": "door", "format": "edge_impulse", "record": {"timing": timing, "result": result}}
    assert "sleep_time_sec is not needed" in process.log


def test_commands_are_answered(link: Path, tmp_path: Path) -> None:
    with (
        Mcu(link, detections(), interval_s=0.02) as board,
        Standalone("serial_scraper", configuration(link), tmp_path / "work") as process,
    ):
        assert process.message(ANSWER)["result"]["status"] == "started"
        process.message(OUTPUT)
        process.send(COMMAND, {"cmd": "get_model_info"}, "iot_core")
        info = process.message(ANSWER, count=2)["result"]["model_info"]
        assert (info["model_name"], info["model_version"]) == ("Door watch", "v7")
        process.send(COMMAND, {"cmd": "set_threshold_filter_confidence", "value": 0.9}, "iot_core")
        process.send(COMMAND, {"cmd": "restart"}, "iot_core")
        assert process.message(ANSWER, count=4) == {"result": {"restart": "OK"}}
        assert process.message(ANSWER, count=5)["result"]["status"] == "started"
        eventually(lambda: board.received.count(b"AT+RUNIMPULSE\r") == 2, what="a second start of the firmware")


def test_metrics_and_threshold_work_for_boards_too(link: Path, tmp_path: Path) -> None:
    def scores() -> Iterator[Inference]:
        for score in itertools.cycle([0.9, 0.2]):
            yield Inference({"dsp": 2}, {"classification": {"idle": score, "wave": 0.1}})

    parameters = {"enable_threshold_limit": "yes", "default_threshold": "50.0", "metrics_sleeptime_ms": "200"}
    with (
        Mcu(link, scores(), dialect="D1", interval_s=0.02),
        Standalone("serial_scraper", configuration(link, parameters), tmp_path / "work") as process,
    ):
        published = [process.message(OUTPUT, count=count)["c"]["idle"] for count in (1, 2, 3)]
        metrics = eventually(lambda: [m for m in process.lines if m["topic"] == METRICS][3:])[0]["payload"]
    assert published == [0.9, 0.9, 0.9]
    assert 0.2 < metrics["mean_confidence"] < 0.9


def test_other_formats_go_to_the_local_topic_and_with_backoff_and_rate_limit_to_iot_core(
    link: Path, tmp_path: Path
) -> None:
    config = configuration(
        link,
        format="csv",
        columns={"t": "int", "x": "float"},
        iot_core={"topic": "edgeml/serial/door/record", "every": "10", "max_per_s": "2"},
    )
    with (
        Mcu(link, iter(()), answers=False) as board,
        Standalone("serial_scraper", config, tmp_path / "work") as process,
    ):
        process.logged("port open")
        board.say("".join(f"{number},{number / 4}\r\n" for number in range(100)))
        process.message("edgeml/serial/door/record", count=102)  # on both channels
    records = [message for message in process.lines if message["topic"] == "edgeml/serial/door/record"]
    local, remote = (
        [message["payload"]["record"] for message in records if message["channel"] == channel]
        for channel in ("local", "iot_core")
    )
    assert local == [{"t": number, "x": number / 4} for number in range(100)]
    assert remote == [{"t": 9, "x": 2.25}, {"t": 19, "x": 4.75}]


def test_several_boards_have_topics_of_their_own(link: Path, tmp_path: Path) -> None:
    other = tmp_path / "ttyOther"
    config = configuration(link, device_name="Gate")
    config["ports"]["yard"] = {"device": str(other), "mode": "listen"}
    yard = f"/edgeimpulse/device/{device_name('My Device_yard', default_mac())}/inference/output"
    gate = f"/edgeimpulse/device/{device_name('Gate', default_mac())}/inference/output"
    with (
        Mcu(link, detections(), interval_s=0.05),
        Mcu(other, detections(), interval_s=0.05, auto_start=True, answers=False, dialect="D2"),
        Standalone("serial_scraper", config, tmp_path / "work") as process,
    ):
        assert process.message(gate)["box"]
        assert process.message(yard)["box"]
        process.message("edgeml/serial/yard/record")


def test_a_changed_port_is_reopened_and_the_others_go_on(link: Path, tmp_path: Path) -> None:
    steady = tmp_path / "ttySteady"
    config = configuration(link)
    config["ports"]["steady"] = {"device": str(steady), "device_name": "Steady"}
    with (
        Mcu(link, detections(), interval_s=0.02),
        Mcu(steady, detections(), interval_s=0.02) as board,
        Standalone("serial_scraper", config, tmp_path / "work") as process,
    ):
        process.message("edgeml/serial/door/record")
        process.message("edgeml/serial/steady/record")
        config["ports"] = {"front": config["ports"]["door"], "steady": config["ports"]["steady"]}
        process.configure(config)
        process.message("edgeml/serial/front/record")
        assert board.received.count(b"AT+RUNIMPULSE\r") == 1


@pytest.mark.parametrize(
    ("port", "words"),
    [
        ({"format": "csv"}, "ports.door.columns"),
        ({"format": "regex", "pattern": "("}, "ports.door.pattern"),
        ({"usb": "2341"}, "ports.door.usb"),
        ({"baud": "fast"}, "ports.door.baud"),
    ],
)
def test_a_wrong_configuration_names_its_place(link: Path, tmp_path: Path, port: dict[str, Any], words: str) -> None:
    with Standalone("serial_scraper", configuration(link, **port), tmp_path / "work") as process:
        assert process.ended() == 78
    assert words in process.log


def test_sigterm_stops_the_board_and_ends_the_process(link: Path, tmp_path: Path) -> None:
    with (
        Mcu(link, detections(), interval_s=0.02) as board,
        Standalone("serial_scraper", configuration(link), tmp_path / "work") as process,
    ):
        process.message(OUTPUT)
        assert process.stop(timeout=5) == 0
        eventually(lambda: not board.running, what="a board that was told to stop")


def test_boards_that_do_not_answer_hold_up_the_end_no_longer_than_one(tmp_path: Path) -> None:
    names = ("a", "b", "c", "d")
    config = configuration(tmp_path / "a")
    config["ports"] = {name: {"device": str(tmp_path / name)} for name in names}
    with ExitStack() as stack:
        for name in names:
            stack.enter_context(Mcu(tmp_path / name, iter(()), answers=False))
        process = stack.enter_context(Standalone("serial_scraper", config, tmp_path / "work"))
        for name in names:
            process.logged(f"name={name} ")
        eventually(lambda: process.log.count("port open") == 4, what="four open ports")
        began = time.monotonic()
        assert process.stop() == 0
        assert time.monotonic() - began < 4

"""The component as a process: configuration, faults, stopping, and a soak."""

import os
import time
from pathlib import Path
from typing import Any

import pytest

from edgeml.frames import FrameWriter
from inferencer_support import Answer, detects, endpoint, picture, regressor
from localdev.simulators.turbine import Turbine
from support import ROOT, Standalone, eventually


def topic_pipeline(bundle: Path, **changes: Any) -> dict[str, Any]:
    return {
        "source": {"type": "topic", "topic": "t"},
        "backend": {"type": "onnx", "model": "Tiny", "path": str(bundle)},
        **changes,
    }


def ask(running: Standalone, values: list[float], pipeline: str, count: int = 1) -> Any:
    running.send("t", values)
    return running.message(f"edgeml/inference/{pipeline}", count=count)


ONNX = {"type": "onnx", "model": "Tiny"}
TOPIC = {"type": "topic", "topic": "t"}
WRONG = {
    "no such source": ({"source": {"type": "magic"}, "backend": ONNX}, "pipelines.p.source.type: "),
    "no such backend": ({"source": TOPIC, "backend": {"type": "gpu"}}, "pipelines.p.backend.type: "),
    "no topic": (
        {"source": {"type": "topic"}, "backend": ONNX},
        "pipelines.p.source: object missing required field topic",
    ),
    "range": ({"source": TOPIC, "backend": ONNX, "score_threshold": "1.5"}, "pipelines.p.score_threshold"),
    "type": ({"source": TOPIC, "backend": {**ONNX, "threads": "many"}}, "pipelines.p.backend.threads"),
    "provider": (
        {"source": TOPIC, "backend": {**ONNX, "providers": ["TpuProvider"]}},
        "providers.0: TpuProvider is not",
    ),
    "timer": ({"source": {"type": "timer"}, "backend": ONNX}, "a timer needs either file or camera"),
}


@pytest.mark.parametrize("fault", ["type", "provider"])
def test_a_wrong_configuration_ends_the_process_and_names_the_place(tmp_path: Path, fault: str) -> None:
    pipeline, place = WRONG[fault]
    with Standalone("inferencer", {"pipelines": {"p": pipeline}}, tmp_path) as running:
        assert running.ended() == 78
        assert place in running.log


def test_a_wrong_change_is_refused_and_the_place_is_named(tmp_path: Path) -> None:
    with Standalone("inferencer", {}, tmp_path) as running:
        running.logged("started")
        for pipeline, place in WRONG.values():
            running.configure({"pipelines": {"p": pipeline}})
            running.logged(place)
        assert "configuration changed" not in running.log
        assert running.stop() == 0


def test_a_bad_update_keeps_the_good_pipelines_running(tmp_path: Path) -> None:
    good = topic_pipeline(regressor(tmp_path / "b"))
    with Standalone("inferencer", {"pipelines": {"good": good}}, tmp_path / "w") as running:
        running.logged("model loaded")
        assert ask(running, [1, 2, 3], "good")["results"] == {"value": 6.0}

        def update(pipelines: dict[str, Any]) -> None:
            running.configure({"pipelines": pipelines})

        update({"good": good, "bad": {"source": TOPIC, "backend": {**ONNX, "threads": -1}}})
        running.logged("pipelines.bad.backend.threads")
        assert ask(running, [1, 2, 4], "good", 2)["results"] == {"value": 7.0}

        absent = {"source": {"type": "caller", "file": "/nowhere.csv"}, "backend": ONNX}
        update({"good": good, "bad": absent})
        running.logged("pipeline not started pipeline=bad")
        assert ask(running, [1, 2, 5], "good", 3)["results"] == {"value": 8.0}
        assert "pipeline ended" not in running.log  # the good one was not even restarted

        update({"other": good})
        running.logged("pipeline ended pipeline=good")
        eventually(lambda: running.log.count("configuration changed") == 2, 10, "the new pipeline")
        eventually(lambda: running.log.count("model loaded") == 2, 10, "its model")
        assert ask(running, [1, 1, 1], "other")["results"] == {"value": 3.0}
        assert running.stop() == 0


def test_a_slow_pipeline_does_not_stall_another_and_sigterm_is_quick(tmp_path: Path) -> None:
    with endpoint() as server:
        server.behave = lambda body: Answer(body=b"1", delay_s=8)
        slow = {"source": TOPIC, "backend": {"type": "http", "url": server.url, "task": "regression"}}
        config = {
            "pipelines": {f"slow{n}": slow for n in range(3)} | {"fast": topic_pipeline(regressor(tmp_path / "b"))}
        }
        with Standalone("inferencer", config, tmp_path / "w") as running:
            running.logged("model loaded")
            for number in range(1, 6):
                began = time.monotonic()
                ask(running, [number, 0, 0], "fast", number)
                assert time.monotonic() - began < 7  # of the 8 s that the others wait
            eventually(lambda: len(server.requests) == 3, 5, "three slow requests")
            began = time.monotonic()
            assert running.stop() == 0
            assert time.monotonic() - began < 4
        server.released.set()


def test_crops_wait_for_s3_and_none_is_lost(tmp_path: Path) -> None:
    """Every frame is a detection of a whole-frame box; S3 refuses until late, across a restart."""
    bundle = detects(tmp_path / "b")
    with endpoint() as s3:
        s3.behave = lambda body: Answer(503)
        env = {
            "AWS_ENDPOINT_URL_S3": s3.url,
            "AWS_ACCESS_KEY_ID": "x",
            "AWS_SECRET_ACCESS_KEY": "x",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        pipeline = {
            "source": {"type": "camera", "camera": "c", "policy": "every"},
            "backend": {"type": "onnx", "model": "Tiny", "path": str(bundle)},
            "crops": {"bucket": "crops-bucket", "min_pixels": 1},
        }
        config = {"pipelines": {"p": pipeline}, "ring_directory": str(tmp_path)}
        with FrameWriter("c", width=32, height=32, directory=tmp_path) as writer:
            with Standalone("inferencer", config, tmp_path / "w", env=env) as running:
                running.logged("model loaded")
                for number in range(1, 13):
                    writer.write(picture(blue=200, size=(32, 32)))
                    running.message("edgeml/inference/p", count=number)
                eventually(lambda: s3.requests, 5, "an attempt")
                assert running.stop() == 0
            s3.requests.clear()
            s3.behave = lambda body: Answer(body=b"")
            with Standalone("inferencer", config, tmp_path / "w", env=env) as running:
                eventually(lambda: len({path for path, _, _ in s3.requests}) == 12, 20, "all crops")
                assert running.stop() == 0
        assert all(b"\xff\xd8\xff" in body for _, _, body in s3.requests)


def test_an_object_is_told_of_and_interrupted_by_the_end_of_the_process(tmp_path: Path) -> None:
    bundle = detects(tmp_path / "b")
    pipeline = {
        "source": {"type": "camera", "camera": "c", "policy": "every"},
        "backend": {"type": "onnx", "model": "Tiny", "path": str(bundle)},
        "tracking": {},
        "iot_core": {"when": "events", "topic": "events"},
        "events": {"zones": {"all": {"points": [[0, 0], [1, 0], [1, 1], [0, 1]]}}},
    }
    config = {"pipelines": {"p": pipeline}, "ring_directory": str(tmp_path)}
    with FrameWriter("c", width=32, height=32, directory=tmp_path) as writer:
        with Standalone("inferencer", config, tmp_path / "w") as running:
            running.logged("model loaded")
            for number in range(1, 6):
                writer.write(picture(blue=200, size=(32, 32)))
                running.message("edgeml/inference/p", count=number)
            assert running.message("edgeml/inference/p", count=5)["results"][0]["track"] == 1
            begun = running.message("edgeml/event/p", count=2)
            assert begun["event"] == "entered"
            assert running.message("events", count=2) == begun
            eventually(lambda: begun["id"] in (tmp_path / "w/pipelines.p.events").read_text(), 5, "a kept event")
            running.process.kill()
            running.process.wait()
        with Standalone("inferencer", config, tmp_path / "w") as running:
            ended = running.message("edgeml/event/p", count=2)
            assert ended["event"] == "interrupted"
            assert running.message("events", count=2) == ended
            running.logged("model loaded")
            writer.write(picture(blue=200, size=(32, 32)))
            assert running.message("edgeml/inference/p")["results"][0]["track"] > 1
            assert running.stop() == 0


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_ten_minutes_at_200_messages_a_second_with_flat_memory(tmp_path: Path) -> None:
    bundle = ROOT / "components" / "model_store" / "wind_turbine"
    pipeline = topic_pipeline(bundle, verdict_every_s=0, telemetry={"enabled": True})
    turbine = Turbine()
    with Standalone("inferencer", {"pipelines": {"p": pipeline}}, tmp_path, on_line=drained) as running:
        running.logged("model loaded")
        sizes, began = [], time.monotonic()
        for number in range(600 * 200):
            running.send("t", list(turbine.read()))
            if number % 2000 == 0:
                sizes.append(resident(running.process.pid))
            time.sleep(max(0.0, began + number / 200 - time.monotonic()))
        assert running.stop() == 0
    assert max(sizes[-10:]) < 1.05 * max(sizes[5:15]), sizes


def drained(stdout: Any) -> None:
    for _ in stdout:
        continue


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

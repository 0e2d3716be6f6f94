import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_impulse_runner import life as life_module
from edge_impulse_runner.config import Config, Model, SourceSettings
from edge_impulse_runner.life import Life
from edge_impulse_runner.models import ModelFinder
from edge_impulse_runner.protocol import Hello
from edge_impulse_runner.sources import Window
from edgeml.backoff import Backoff
from edgeml.edge_impulse.device import Topics
from edgeml.edge_impulse.parameters import Parameters, interpret
from edgeml.edge_impulse.reporter import Reporter
from edgeml.edge_impulse.studio import Studio
from edgeml.errors import SourceError, SpoolError
from edgeml.health import Health
from support import eventually


class Ticks:
    """An input that always has a window, or breaks after `windows` of them."""

    def __init__(self, hello: Hello, windows: int = 1 << 30, continuous: bool = False) -> None:
        parameters = hello.model_parameters
        size = parameters.slice_size if continuous else parameters.input_features_count
        self.features = np.zeros(size, dtype=np.float32)
        self._left, self._continuous = windows, continuous
        self.closed = False

    def next(self, timeout: float) -> Window | None:
        self._left -= 1
        if self._left < 0:
            raise SourceError("the camera was unplugged")
        return Window(self.features, time.monotonic(), self._continuous)

    def close(self) -> None:
        self.closed = True


class Running:
    """A Life on a thread, what it published, and its sources."""

    def __init__(self, folder: Path, model: Path | None = None, **settings: Any) -> None:
        self.health = Health("test", "1")
        self.messages: list[tuple[str, dict[str, Any]]] = []
        self.sources: list[Ticks] = []
        self.windows = settings.pop("windows", 1 << 30)
        self.continuous = settings.pop("continuous", False)
        self.broken_spool = False
        begin = settings.pop("begin", True)
        config = Config(
            model=Model(
                bundle=settings.pop("bundle", ""),
                thresholds=settings.pop("thresholds", {}),
                classify_timeout_s=settings.pop("classify_timeout_s", 5.0),
            ),
            input=SourceSettings(max_fps=settings.pop("max_fps", 200.0)),
        )
        parameters = {"iotcore_backoff": 0, "ei_local_model_file": str(model or "__none__"), **settings}
        found = interpret(Parameters(**parameters))
        reporter = Reporter(
            found, Topics("D"), self._send, health=self.health, max_bytes=128 * 1024, restart=lambda: None
        )
        finder = ModelFinder(
            found, config.model, root=folder, work=folder, studio=lambda: Studio("", "http://127.0.0.1:9")
        )
        self.life = Life(config, found, finder, self._source, reporter, self.health, backoff=Backoff(0.02, 0.02))
        self.thread = threading.Thread(target=self.life.run)
        if begin:
            self.thread.start()

    def _source(self, hello: Hello) -> Ticks:
        self.sources.append(Ticks(hello, self.windows, self.continuous))
        return self.sources[-1]

    def _send(self, topic: str, payload: bytes) -> None:
        if self.broken_spool and topic.endswith("inference/output"):
            raise SpoolError("disk full")
        self.messages.append((topic.removeprefix("/edgeimpulse/device/D/"), json.loads(payload)))

    def topic(self, topic: str) -> list[dict[str, Any]]:
        return [message for name, message in self.messages if name == topic]

    @property
    def results(self) -> list[dict[str, Any]]:
        return self.topic("inference/output")

    def stop(self) -> None:
        self.life.ask_to_stop()
        self.thread.join(timeout=5)
        assert not self.thread.is_alive()
        assert all(source.closed for source in self.sources)


Run = Callable[..., Running]


@pytest.fixture
def run(tmp_path: Path, no_leaks: None) -> Iterator[Run]:
    lives: list[Running] = []

    def start(model: Path | None = None, **settings: Any) -> Running:
        lives.append(Running(tmp_path, model, **settings))
        return lives[-1]

    yield start
    for life in lives:
        life.stop()


Launcher = Callable[..., Path]


def test_results_metrics_and_a_start_message(run: Run, launcher: Launcher) -> None:
    running = run(launcher(kind="box"), metrics_sleeptime_ms=101)
    eventually(lambda: [m for m in running.topic("model/metrics") if m["details"]["n"]], what="metrics of results")
    assert running.messages[0][1]["result"]["status"] == "started"
    assert running.messages[1][0] == "model/metrics"
    assert running.results[0]["box"][0]["label"] == "face"
    assert running.topic("model/metrics")[-1]["mean_confidence"] == 0.76  # of 0.91 and 0.61, again and again


def test_a_hung_model_is_replaced_and_results_go_on(run: Run, launcher: Launcher) -> None:
    running = run(launcher(misbehaves="hangs", after=2), classify_timeout_s=0.1)
    eventually(lambda: len(running.results) >= 5, timeout=15, what="results of three models")
    assert running.health.counter("failures") >= 2
    assert "hangs" in (running.health.report().last_error or "")


@pytest.mark.parametrize("misbehaves", ["dies", "garbage", "wrong_id"])
def test_a_model_that_breaks_is_replaced(run: Run, launcher: Launcher, misbehaves: str) -> None:
    running = run(launcher(misbehaves=misbehaves, after=1))
    eventually(lambda: len(running.results) >= 3, what="results of three models")


def test_a_model_that_never_starts_is_tried_again_and_told(run: Run, launcher: Launcher) -> None:
    running = run(launcher(misbehaves="exits_at_start"))
    eventually(lambda: running.health.counter("failures") >= 3, what="attempts")
    assert "exit code 127" in running.health.report().notes["state"]
    running.life.reporter.command(b'{"cmd":"get_threshold_filter_criteria"}')
    assert running.topic("command/output")[-1] == {"result": {"criteria": "ge"}}


def test_a_refused_input_is_counted_and_the_model_kept(run: Run, launcher: Launcher) -> None:
    running = run(launcher(kind="audio", slice_size=4000), continuous=False)
    eventually(lambda: len(running.results) >= 2, what="results")
    pids = running.health.counter("failures")
    running.sources[-1].features = np.zeros(5, dtype=np.float32)
    eventually(lambda: running.health.counter("inferences_refused") >= 2, what="refusals")
    assert running.health.counter("failures") == pids == 0


def test_a_listening_model_is_not_believed_before_it_heard_a_window(run: Run, launcher: Launcher) -> None:
    running = run(launcher(kind="audio", labels=["noise", "yes"]), continuous=True)
    eventually(lambda: running.results, what="results")
    assert running.results[0]["c"] == {"noise": 0.9, "yes": 0.1}
    assert running.results[0]["total_inferences"] == 1
    assert running.health.counter("inferences") >= 4


def test_a_broken_input_is_opened_again(run: Run, launcher: Launcher) -> None:
    running = run(launcher(), windows=2)
    eventually(lambda: len(running.results) >= 6, what="results of three sources")


def test_wait_on_restart_waits(run: Run, launcher: Launcher) -> None:
    running = run(launcher(), windows=2, ei_shutdown_behavior="wait_on_restart")
    eventually(lambda: "unplugged" in running.health.report().notes.get("state", ""), what="state")
    assert len(running.sources) == 1
    assert len(running.results) == 2
    running.life.reporter.command(b'{"cmd":"get_model_info"}')
    assert running.topic("command/output")[-1]["result"]["model_info"]["model_version"] == "v7"


def test_stop_does_not_wait_for_a_model_that_hangs(run: Run, launcher: Launcher) -> None:
    running = run(launcher(misbehaves="hangs"), classify_timeout_s=60.0)
    eventually(lambda: running.sources, what="source")
    began = time.monotonic()
    running.stop()
    assert time.monotonic() - began < 20  # of 60


def test_thresholds_are_set_in_the_model(run: Run, launcher: Launcher) -> None:
    running = run(launcher(kind="box"), thresholds={"3": {"min_score": 0.7}})
    eventually(lambda: running.results, what="results")
    assert [box["value"] for box in running.results[0]["box"]] == [0.91]


def test_a_full_disk_loses_results_and_nothing_else(run: Run, launcher: Launcher) -> None:
    running = run(launcher())
    eventually(lambda: running.results, what="results")
    running.broken_spool = True
    eventually(lambda: running.health.counter("results_lost") >= 3, what="lost results")
    running.broken_spool = False
    before = len(running.results)
    eventually(lambda: len(running.results) > before, what="results again")
    assert running.health.counter("failures") == 0


def install(bundle: Path, launcher: Launcher, **options: Any) -> None:
    """Put a model into a new folder and switch the bundle's link to it in one step."""
    folder = bundle.parent / f"v{options.get('deploy_version', 0)}"
    folder.mkdir(parents=True)
    launcher(**options).rename(folder / "model.eim")
    link = bundle.parent / "next"
    link.symlink_to(folder)
    link.rename(bundle)


def test_a_bundle_is_waited_for_then_swapped_and_a_bad_one_refused(
    run: Run, launcher: Launcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(life_module, "MODEL_CHECK_S", 0.05)
    running = run(bundle="Cars")
    eventually(lambda: "waiting for model bundle Cars" in running.health.report().notes.get("state", ""), what="state")
    bundle = tmp_path / "work" / "edgeml.model.Cars" / "current"
    install(bundle, launcher, deploy_version=1)
    eventually(lambda: running.health.report().notes.get("model") == "Stand-in v1", what="first version")
    install(bundle, launcher, deploy_version=2)
    eventually(lambda: running.health.report().notes.get("model") == "Stand-in v2", what="second version")
    failures = running.health.counter("failures")
    install(bundle, launcher, deploy_version=3, misbehaves="exits_at_start")
    eventually(lambda: "exit code 127" in (running.health.report().last_error or ""), what="refusal")
    before = len(running.results)
    eventually(lambda: len(running.results) > before + 40, what="results of the old model, over several checks")
    assert running.health.counter("models_refused") == 1
    assert running.health.counter("failures") == failures
    assert running.health.report().notes["model"] == "Stand-in v2"


def test_the_limit_of_inferences_a_second(run: Run, launcher: Launcher) -> None:
    running = run(launcher(), max_fps=20.0)
    eventually(lambda: len(running.results) >= 6, what="results")
    times = [message["ts"] for message in running.results[:6]]
    assert times[-1] - times[0] >= 5 * 45


def test_what_nobody_expected_leaves_no_second_thread_of_metrics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ModelFinder, "locate", lambda source, stopping: 1 / 0)
    for _ in range(2):  # as the worker that runs it does
        with pytest.raises(ZeroDivisionError):
            Running(tmp_path, begin=False).life.run()
    assert not [thread for thread in threading.enumerate() if thread.name == "metrics"]


def test_metrics_go_on_after_a_failure_that_nobody_expected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running, asked = Running(tmp_path, begin=False, metrics_sleeptime_ms=101), list[int]()

    def fail() -> None:
        asked.append(1)
        raise ZeroDivisionError

    monkeypatch.setattr(running.life.reporter, "publish_metrics", fail)
    running.thread.start()
    eventually(lambda: len(asked) > 1)
    running.stop()

"""kill -9, rotations, a full disk: what was written is compared with what arrived, line by line."""

import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.log_rig import Shipper, shipper
from faulty_logs import Fault, FaultySink, Request
from support import eventually


class Writer:
    """Writes numbered nucleus lines to one log as fast as asked, rotating it now and then, until it is stopped."""

    def __init__(self, folder: Path, name: str, seed: int, ways: list[str]) -> None:
        self.lines: list[str] = []
        self._folder, self.name, self._ways = folder, name, ways
        self._random = random.Random(seed)
        self._rotations = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def owns(self, group: str) -> bool:
        return group.endswith(f"/{self.name}")

    def _run(self) -> None:
        active = self._folder / f"{self.name}.log"
        while not self._stopping.wait(0.005):
            with active.open("a") as file:
                for _ in range(self._random.randrange(60)):
                    line = self._line()
                    self.lines.append(line)
                    middle = self._random.randrange(len(line)) if self._random.random() < 0.02 else 0
                    file.write(line[:middle])
                    if middle:
                        file.flush()  # the shipper may see half a line
                    file.write(f"{line[middle:]}\n")
            if self._random.random() < 0.06 and active.stat().st_size:
                self._rotate(active, self._random.choice(self._ways))

    def _line(self) -> str:
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
        filler = "x" * self._random.randrange(400)
        return f"{stamp}.{int(now * 1000) % 1000:03}Z [INFO] (Copier) {self.name}: stdout. {len(self.lines)} {filler}."

    def _rotate(self, active: Path, way: str) -> None:
        self._rotations += 1
        if way == "rename":
            active.rename(active.with_name(f"{self.name}_2026_11_21_05_{self._rotations}.log"))
        else:
            copy = active.with_name(f"{active.name}.{self._rotations}")
            copy.write_bytes(active.read_bytes())
            with active.open("r+") as file:
                file.truncate()


@contextmanager
def writing(folder: Path, names: list[str], seed: int, ways: list[str]) -> Iterator[list[Writer]]:
    writers = [Writer(folder, name, seed + index, ways) for index, name in enumerate(names)]
    try:
        yield writers
    finally:
        for writer in writers:
            writer.stop()


def arrived(sink: FaultySink, writers: list[Writer]) -> None:
    def missing() -> int:
        return sum(len(set(writer.lines) - set(sink.messages(f"/{writer.name}"))) for writer in writers)

    eventually(lambda: missing() == 0, timeout=20, what="all lines")


REGEX = {"componentLogsConfigurationMap": {"app": {"logFileRegex": r"^\Qapp.log\E(\.\d+)?$"}}}


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_again_and_again_under_load_nothing_is_lost_and_a_batch_at_most_repeated(
    tmp_path: Path, sink: FaultySink, seed: int
) -> None:
    dice = random.Random(seed)
    unanswered: list[Request] = []

    def fault(request: Request) -> Fault | None:
        """Now and then a batch is taken and the answer lost, which repeats it as a kill does."""
        if request.operation != "PutLogEvents" or dice.random() > 0.02:
            return None
        unanswered.append(request)
        return Fault(0, stored=True)

    sink.fault = fault
    process = Shipper(tmp_path, {}, AWS_ENDPOINT_URL=sink.url)
    kills = 6
    with writing(process.logs, ["edgeml.A", "edgeml.A_B"], seed, ["rename"]) as writers:
        for _ in range(kills):
            process.start()
            time.sleep(dice.uniform(0.25, 0.6))
            process.kill()
    sink.fault = lambda request: None
    process.start()
    try:
        arrived(sink, writers)
    finally:
        assert process.stop() == 0
    for writer in writers:
        counts = sink.counted(f"/{writer.name}")
        assert set(counts) == set(writer.lines)
        repeated = sum(count - 1 for count in counts.values())
        mine = [request for request in sink.requests if "logEvents" in request.body and writer.owns(request.group)]
        largest = max(len(request.body["logEvents"]) for request in mine)
        lost_answers = sum(len(request.body["logEvents"]) for request in unanswered if writer.owns(request.group))
        assert repeated <= kills * largest + lost_answers


def test_a_kill_between_acknowledgement_and_record_repeats_that_batch_alone(tmp_path: Path, sink: FaultySink) -> None:
    process = Shipper(tmp_path, {}, AWS_ENDPOINT_URL=sink.url)
    lines = [f"2026-11-21T10:00:00Z [INFO] (main) a: {number}" for number in range(30_000)]
    (process.logs / "edgeml.A.log").write_text("".join(f"{line}\n" for line in lines))
    puts = 0

    def fault(request: Request) -> Fault | None:
        nonlocal puts
        puts += request.operation == "PutLogEvents"
        if puts == 3 and request.operation == "PutLogEvents":
            process.send_signal(signal.SIGKILL)  # the events are taken, the answer finds nobody
            return Fault(0, stored=True)
        return None

    sink.fault = fault
    process.start()
    eventually(lambda: not process.running(), what="the kill")
    process.kill()
    process.start()
    eventually(lambda: set(sink.messages()) == set(lines), what="all lines")
    process.stop()
    in_flight = [request for request in sink.requests if request.operation == "PutLogEvents"][2]
    repeated = {message for message, count in sink.counted().items() if count > 1}
    assert repeated == {event["message"] for event in in_flight.body["logEvents"]}
    assert Counter(sink.counted().values()) == {2: len(repeated), 1: len(lines) - len(repeated)}


def test_copytruncate_neither_loses_nor_repeats(tmp_path: Path, sink: FaultySink) -> None:
    config = {"logsUploaderConfiguration": REGEX}
    with (
        shipper(tmp_path, config, AWS_ENDPOINT_URL=sink.url) as process,
        writing(process.logs, ["app"], 7, ["copytruncate"]) as writers,
    ):
        eventually(lambda: len(list(process.logs.iterdir())) > 6, timeout=20, what="six rotations")
        writers[0].stop()
        arrived(sink, writers)
    assert sink.counted() == Counter(writers[0].lines)


def test_copytruncate_while_the_shipper_is_down_neither_loses_nor_repeats(tmp_path: Path, sink: FaultySink) -> None:
    process = Shipper(tmp_path, {"logsUploaderConfiguration": REGEX}, AWS_ENDPOINT_URL=sink.url)
    log = process.logs / "app.log"
    lines = [f"2026-11-21T10:00:00Z [INFO] (main) a: {number}" for number in range(300)]

    def write(first: int, last: int) -> None:
        with log.open("a") as file:
            file.write("".join(f"{line}\n" for line in lines[first:last]))

    write(0, 100)
    process.start()
    sink.wait_for(100)
    process.stop()
    write(100, 200)
    log.with_name("app.log.1").write_bytes(log.read_bytes())
    with log.open("r+") as file:
        file.truncate()
    write(200, 300)
    process.start()
    sink.wait_for(300)
    process.stop()
    assert sink.counted() == Counter(lines)


def test_with_a_full_disk_nothing_more_is_sent_until_progress_can_be_recorded(tmp_path: Path, sink: FaultySink) -> None:
    with shipper(tmp_path, {}, AWS_ENDPOINT_URL=sink.url) as process:
        log = process.logs / "edgeml.A.log"
        line = "2026-11-21T10:00:00Z [INFO] (main) a: "
        log.write_text("".join(f"{line}{number}\n" for number in range(10)))
        sink.wait_for(10)
        time.sleep(0.3)  # the last line is recorded
        process.limit_file_size(0)
        for number in range(10, 20):
            with log.open("a") as file:
                file.write(f"{line}{number}\n")
            time.sleep(0.06)
        eventually(lambda: "cannot record progress" in process.said(), what="the reason")
        sent = len(sink.messages())
        time.sleep(0.5)
        assert len(sink.messages()) == sent < 20
        process.kill()
        process.start()
        eventually(lambda: len(set(sink.messages())) == 20, what="all lines")
        assert sum(sink.counted().values()) - 20 <= sent - 10


def test_a_start_without_room_for_the_record_waits_for_it(tmp_path: Path, sink: FaultySink) -> None:
    process = Shipper(tmp_path, {}, AWS_ENDPOINT_URL=sink.url)
    obstacle = process.work / "checkpoint.db"
    obstacle.mkdir()
    (process.logs / "edgeml.A.log").write_text("2026-11-21T10:00:00Z [INFO] (main) a: b\n")
    process.start()
    try:
        eventually(lambda: "nothing is sent until this works" in process.said(), what="the reason")
        assert not sink.requests
        obstacle.rmdir()
        sink.wait_for(1)
    finally:
        assert process.stop() == 0

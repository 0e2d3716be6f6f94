"""Whatever the lines of a log are, the parser's caches give what it finds without them."""

import itertools
from random import Random

from hypothesis import example, given, note, settings
from hypothesis import strategies as st

from log_shipper.batch import Batch
from log_shipper.parse import Parser
from log_shipper.records import Records
from log_shipper.seconds import Seconds
from log_shipper.times import Window, Zone

NOW = 1_795_255_200
ARRIVAL = NOW * 1000 - 5
METRICS = '"CloudWatchMetrics"'  # a text that has it is read without caches
CONTEXT = "{scriptName=x, serviceName=a, currentState=RUNNING}"
DENSE = [f"2026-11-21T10:00:{at // 100:02}.{at % 20:03}Z [{('INFO', 'DEBUG')[at % 7 > 5]}] {at}" for at in range(450)]

seconds = st.one_of(
    st.builds(
        "2026-11-{:02}{}1{}:0{}:{:02}".format, st.integers(20, 22), st.sampled_from("T "), *[st.integers(0, 9)] * 3
    ),
    st.sampled_from(["2026-02-30T10:00:00", "2026-11-21T10:00:60", "0001-01-01T00:00:00", "1970-01-01T00:00:00"]),
    st.sampled_from(["1969-12-31T23:59:59", "2001-01-02T00:00:01", "²026-11-21T10:00:00", "2026-11-21T1٠:00:00"]),
    st.sampled_from(["2026-11-21t10:00:00", "2026-11-21T10-00-00", "2026-11-21", "", "[2026-11-21T10:00:00"]),
)
tails = st.one_of(
    st.builds(
        ".{:03}{} [{}]".format, st.integers(0, 20), st.sampled_from(["Z", ""]), st.sampled_from(["INFO", "DEBUG"])
    ),
    st.sampled_from(["Z [ERROR]", ".5Z [WARN]", ",123Z [WARN]", "+02:00 [INFO]", ".123456789Z [INFO]", ".5Z [INFORM]"]),
    st.sampled_from(["", "Z", ".123Z", ".12", " INFO x", "+99:99 [INFO]"]),
)
rests = st.one_of(
    st.text(max_size=20).map(lambda text: text.replace("\n", " ")),
    st.sampled_from(["Traceback (most recent call last):", 'File "/a.py", line 1, in x', "run()"]).map(
        lambda body: f" (Copier) a: stderr. {body}. {CONTEXT}"
    ),
    st.binary(max_size=20).map(lambda data: data.decode(errors="replace").replace("\n", " ")),
)
dated = st.builds("{}{}{}".format, seconds, tails, rests)
lines = st.one_of(
    dated, dated, dated, rests, st.sampled_from(['{"level":"INFO","timestamp":1795255199000}', "{", '{"ts":5}'])
)


def parser(level: str, zone: str) -> Parser:
    return Parser(level, None, rejoin_tracebacks=True, zone=Zone(zone), window=Window(0, now=lambda: NOW))


def found(parser: Parser, text: str) -> list[tuple[int, str, int]]:
    records = parser.parse(text, ARRIVAL)
    return list(zip(records.times, records.texts, records.starts, strict=True))


@settings(max_examples=150, deadline=None)
@given(items=st.lists(lines, max_size=30))
@example(items=["2026-11-21T10:00:00.001Z [INFO] a", "2026-11-21T10:00:00.001Z [INFO] b"] * 2)
@example(items=["2026-11-21T10:00:00.001Z [DEBUG] a", "2026-11-21T10:00:00.001Z [DEBUGGER] is no level"])
@example(items=DENSE)
@example(items=[*DENSE[:100], "more", *DENSE[90:]])
@example(items=[*DENSE[:10], DENSE[-1], *DENSE[10:99]])
@example(items=["2026-02-30T10:00:00.001Z [INFO] no such day"] * 200)
@example(items=["0001-01-01T00:00:00.001Z [INFO] Go"] * 100 + DENSE)
def test_caches_cold_and_warm_give_what_is_found_without_them(items: list[str]) -> None:
    text = "".join(f"{item}\n" for item in ["2026-11-21T10:00:00Z [WARN] first", *items])
    for level, zone in itertools.product(("TRACE", "INFO"), ("UTC", "+05:30")):
        note(f"{level} {zone}")
        alone, *expected = found(parser(level, zone), f"{METRICS}\n{text}")
        assert alone == (ARRIVAL, METRICS, 0)
        with_caches = parser(level, zone)
        for _ in range(3):
            assert found(with_caches, text) == [(time, line, start - 1) for time, line, start in expected]


@given(stretches=st.lists(st.tuples(lines, st.integers(1, 90)), max_size=8), seed=st.randoms(use_true_random=False))
def test_seconds_of_many_lines_are_those_of_each(stretches: list[tuple[str, int]], seed: Random) -> None:
    many = [f"{line}{seed.randrange(9)}" for line, count in stretches for _ in range(count)]
    known = Seconds()
    assert list(known.of(many)) == list(known.of(many)) == [Seconds()[line[:19]] for line in many]


@given(groups=st.lists(st.lists(st.integers(0, 5), max_size=5), max_size=5))
def test_a_batch_of_several_reads_comes_out_in_order_of_time_and_else_of_its_lines(groups: list[list[int]]) -> None:
    batch = Batch()
    events: list[tuple[int, str]] = []
    for times in groups:
        texts = [str(len(events) + index) for index in range(len(times))]
        assert batch.add(Records(times, texts, list(range(len(times))))) == len(times)
        events += list(zip(times, texts, strict=True))
    times, texts = batch.chronological()
    assert list(zip(times, texts, strict=True)) == sorted(events, key=lambda event: event[0])

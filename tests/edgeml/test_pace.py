"""Pacer and following, on a clock that the test sets."""

from types import SimpleNamespace

import pytest

from edgeml import pace


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    now = SimpleNamespace(at=0.5)  # a machine that has just started
    monkeypatch.setattr(pace, "time", SimpleNamespace(monotonic=lambda: now.at))
    return now


@pytest.mark.parametrize(
    ("asked", "taken"),
    [
        pytest.param([0.5, 9.5, 10.5, 11.5, 20.5], [0.5, 10.5, 20.5], id="not before it is due"),
        pytest.param([0.5, 12, 20, 20.5, 30.5], [0.5, 12, 20.5, 30.5], id="a little late: the rate is kept"),
        pytest.param([0.5, 45, 46, 54.9, 55], [0.5, 45, 55], id="very late: what was missed is not made up for"),
    ],
)
def test_the_rate_is_kept(asked: list[float], taken: list[float], clock: SimpleNamespace) -> None:
    pacer = pace.Pacer(10)
    found = []
    for clock.at in asked:
        if pacer.take():
            found.append(clock.at)
    assert found == taken


def test_it_says_how_long_to_wait(clock: SimpleNamespace) -> None:
    pacer = pace.Pacer(10)
    assert pacer.wait_s() == 0
    pacer.took()
    clock.at += 4
    assert pacer.wait_s() == 6
    assert not pacer.take()
    clock.at += 7
    assert pacer.wait_s() == 0


def test_0_holds_nothing_back_and_later_holds_the_first_back(clock: SimpleNamespace) -> None:
    free, later = pace.Pacer(0), pace.Pacer(10, later=True)
    assert [free.take() for _ in range(3)] == [True] * 3
    assert not later.take()
    clock.at += 10
    assert [later.take(), later.take()] == [True, False]

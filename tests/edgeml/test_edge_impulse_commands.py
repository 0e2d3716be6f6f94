import json
from pathlib import Path
from typing import Any

import pytest

from edgeml.edge_impulse.cache import FileCache
from edgeml.edge_impulse.commands import Commands
from edgeml.edge_impulse.metrics import Metrics
from edgeml.edge_impulse.results import ModelInfo
from edgeml.edge_impulse.retained import WINDOW_S, RetainedGuard
from edgeml.edge_impulse.rules import ThresholdFilter

A_UUID = "8dca8b36-8d04-42bc-8bbd-f7cf34725d60"
OTHER_UUID = "0b27a8b6-e274-4742-bdbb-d3b1ce58539a"


class Device:
    def __init__(self, caches: dict[str, Any] | None = None) -> None:
        self.rules = ThresholdFilter(enabled=False, threshold=0.7, criterion="ge")
        self.metrics = Metrics()
        info = ModelInfo(name="Cars", version="v7", parameters={"sensor": 3, "sensorType": "camera"})
        self.commands = Commands(self.rules, self.metrics, lambda: info, caches)

    def answer(self, cmd: str, value: Any = None) -> dict[str, Any] | None:
        return self.commands.answer(json.dumps({"cmd": cmd, "value": value}).encode())


def config(enabled: str) -> dict[str, Any]:
    return {"threshold_filter_config": {"enabled": enabled, "confidence_threshold": 0.7, "threshold_criteria": "ge"}}


@pytest.mark.parametrize(
    ("cmd", "answer"),
    [
        ("restart", {"restart": "OK"}),
        ("get_threshold_filter_config", config("no")),
        ("enable_threshold_filter", config("yes")),
        ("disable_threshold_filter", config("no")),
        ("get_threshold_filter_confidence", {"confidence_threshold": 0.7}),
        ("get_threshold_filter_criteria", {"criteria": "ge"}),
        (
            "get_model_info",
            {
                "model_info": {
                    "model_name": "Cars",
                    "model_version": "v7",
                    "model_params": {"sensor": 3, "sensorType": "camera"},
                }
            },
        ),
        ("reset_metrics", {"metrics_reset": "OK"}),
        ("clear_cache", {"clear_cache": {"local": "OK", "s3": "OK"}}),
        ("no_such_command", None),
    ],
)
def test_answers(cmd: str, answer: dict[str, Any] | None) -> None:
    assert Device().answer(cmd) == answer


def test_enabling_takes_effect() -> None:
    device = Device()
    device.answer("enable_threshold_filter")
    assert not device.rules.passes(0.5)
    device.answer("disable_threshold_filter")
    assert device.rules.passes(0.5)


@pytest.mark.parametrize(
    ("value", "now"), [(0.8, 0.8), (1, 1), (0, 0.7), (1.01, 0.7), (-1, 0.7), ("0.8", 0.7), (None, 0.7), (True, 0.7)]
)
def test_the_threshold_changes_within_its_bounds_only(value: Any, now: float) -> None:
    device = Device()
    assert device.answer("set_threshold_filter_confidence", value) == {"confidence_threshold": now}
    assert device.rules.threshold == now


@pytest.mark.parametrize(("value", "now"), [("lt", "lt"), ("GT", "gt"), ("most", "ge"), (None, "ge"), (5, "ge")])
def test_the_criterion_in_any_case_and_never_to_nonsense(value: Any, now: str) -> None:
    device = Device()
    assert device.answer("set_threshold_filter_criteria", value) == {"criteria": now}


@pytest.mark.parametrize("payload", [b"", b"no json", b"[]", b"5", b'{"cmd":["restart"]}', b"{}", b"\xff\xfe"])
def test_what_is_no_command_has_no_answer(payload: bytes) -> None:
    assert Device().commands.answer(payload) is None


def test_reset_metrics_resets() -> None:
    device = Device()
    device.metrics.add([0.5])
    device.answer("reset_metrics")
    assert device.metrics.snapshot()["details"]["n"] == 0


def cache(tmp_path: Path, **bounds: int) -> FileCache:
    return FileCache(tmp_path / "cache", tmp_path / "work" / "ledger", **bounds)


def files(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "cache").iterdir())


def test_clear_cache_deletes_only_what_it_wrote_even_after_a_restart(tmp_path: Path) -> None:
    cache(tmp_path).put(A_UUID, b"{}", b"jpeg")
    for name in ("holiday.jpg", f"{OTHER_UUID}.img", f"{OTHER_UUID}.json"):
        (tmp_path / "cache" / name).write_text("someone else's")
    assert f"{A_UUID}.img" in files(tmp_path)
    answer = Device({"local": cache(tmp_path)}).answer("clear_cache")
    assert answer == {"clear_cache": {"local": "OK", "s3": "OK"}}
    assert files(tmp_path) == [f"{OTHER_UUID}.img", f"{OTHER_UUID}.json", "holiday.jpg"]


def test_one_file_is_cleared_by_its_uuid(tmp_path: Path) -> None:
    local = cache(tmp_path)
    local.put(A_UUID, b"{}", b"jpeg")
    local.put(OTHER_UUID, b"{}", b"jpeg")
    device = Device({"local": local})
    cleared = {"local": "OK", "s3": "OK", "uuid": A_UUID}
    assert device.answer("clear_cache_file", A_UUID) == {"clear_cache_file": cleared}
    assert files(tmp_path) == [f"{OTHER_UUID}.img", f"{OTHER_UUID}.json"]
    assert device.answer("clear_cache_file", A_UUID) == {"clear_cache_file": {**cleared, "local": "FAILED"}}


@pytest.mark.parametrize("value", [f"../{A_UUID}", f"x/{A_UUID}", "..", "/etc/passwd", 5, ["x"], A_UUID + "\n"])
def test_a_path_is_no_uuid(tmp_path: Path, value: Any) -> None:
    victim = tmp_path / f"{A_UUID}.json"
    victim.write_text("precious")
    local = cache(tmp_path)
    local.put(A_UUID, b"{}", b"jpeg")
    answer = Device({"local": local}).answer("clear_cache_file", value)
    assert answer == {"clear_cache_file": {"local": "FAILED", "s3": "FAILED", "uuid": value}}
    assert victim.exists()
    assert len(files(tmp_path)) == 2


def test_the_cache_keeps_its_bounds_and_the_newest(tmp_path: Path) -> None:
    uuids = [f"00000000-0000-4000-8000-{number:012d}" for number in range(60)]
    local = cache(tmp_path, max_items=3)
    for identity in uuids:
        local.put(identity, b"{}", b"jpeg")
    assert files(tmp_path) == [f"{identity}.{kind}" for identity in uuids[-3:] for kind in ("img", "json")]
    assert len((tmp_path / "work" / "ledger").read_text().splitlines()) < 30  # the ledger itself does not grow for ever
    small = cache(tmp_path, max_bytes=20)
    small.put(A_UUID, b"x" * 5, b"y" * 5)
    assert files(tmp_path) == sorted(
        f"{identity}.{kind}" for identity in (uuids[-1], A_UUID) for kind in ("img", "json")
    )


def test_a_ledger_that_names_other_files_deletes_nothing(tmp_path: Path) -> None:
    precious = tmp_path / "precious.json"
    precious.write_text("{}")
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "ledger").write_text(f"10 {tmp_path / 'precious'}\ncut sho")
    assert cache(tmp_path).clear()
    assert precious.exists()


def test_a_cache_that_cannot_be_cleared_says_failed(tmp_path: Path) -> None:
    local = cache(tmp_path)
    local.put(A_UUID, b"{}", b"jpeg")
    image = tmp_path / "cache" / f"{A_UUID}.img"
    image.unlink()
    image.mkdir()  # which unlink cannot remove, whoever asks
    assert Device({"local": local}).answer("clear_cache") == {"clear_cache": {"local": "FAILED", "s3": "OK"}}
    image.rmdir()
    assert local.clear()


def test_a_retained_command_is_carried_out_once(tmp_path: Path) -> None:
    now = 0.0
    command = b'{"cmd":"clear_cache"}'
    first = RetainedGuard(tmp_path / "last", clock=lambda: now)
    assert not first.repeated(command)
    assert not first.repeated(command)  # sent again by someone: only what comes right after subscribing is a repetition
    again = RetainedGuard(tmp_path / "last", clock=lambda: now)
    assert again.repeated(command)
    assert not again.repeated(command)
    late = RetainedGuard(tmp_path / "last", clock=lambda: now)
    now = WINDOW_S + 1
    assert not late.repeated(command)
    assert not RetainedGuard(tmp_path / "last", clock=lambda: now).repeated(b'{"cmd":"restart"}')

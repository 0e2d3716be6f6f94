from pathlib import Path

import pytest

from edge_impulse_linux import identity as module
from edge_impulse_linux.identity import identity


def test_the_id_is_the_mac_address_and_ends_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "default_mac", lambda: "02:fc:00:00:00:01")
    who = identity("", "Bob's Door", tmp_path)
    assert (who.id, who.name) == ("02:fc:00:00:00:01", "Bobs_Door_02fc00000001")
    assert identity("press-7", "x", tmp_path).id == "press-7"


def test_a_device_without_an_address_makes_up_one_and_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "default_mac", lambda: "")
    first = identity("", "door", tmp_path)
    assert len(first.id) == 17
    assert int(first.id[:2], 16) & 2
    assert identity("", "door", tmp_path) == first
    assert first.name == "door"

"""The smoke by hand names what a machine lacks, and knows every component that has a process."""

import os
from pathlib import Path

import pytest

import smoke_aarch64
from localdev.workspace import ROOT


def test_all_that_is_missing_is_named_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(smoke_aarch64.SmokeError) as raised:
        smoke_aarch64.check_machine()
    for word in ("root", "apt-get install qemu-user-static", "apt-get install debootstrap", "unshare"):
        assert word in str(raised.value)


@pytest.mark.parametrize(
    ("entry", "word"), [(None, "update-binfmts --enable"), ("flags: OC\n", "flag F"), ("flags: POCF\n", "")]
)
def test_an_entry_of_binfmt_that_works_below_another_root_is_needed(
    entry: str | None, word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for tool in ("qemu-aarch64-static", "debootstrap", "unshare"):
        (tmp_path / tool).touch(0o755)
    if entry:
        (tmp_path / "qemu-aarch64").write_text(f"enabled\ninterpreter /usr/bin/qemu-aarch64-static\n{entry}")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(smoke_aarch64, "BINFMT", tmp_path / "qemu-aarch64")
    if not word:
        smoke_aarch64.check_machine()
        return
    with pytest.raises(smoke_aarch64.SmokeError, match=word):
        smoke_aarch64.check_machine()


def test_every_component_with_a_process_is_tried() -> None:
    processes = {path.parent.name for path in (ROOT / "components").glob("*/__main__.py")}
    assert processes == set(smoke_aarch64.CONFIGURATIONS)

"""Models that are damaged or mean harm: each ends as an error about the model, and leaves nothing behind."""

import os
import struct
import sys
import wave
from pathlib import Path

import numpy as np
import pytest

from edge_impulse_runner import audio, shared
from edge_impulse_runner.audio import Microphone, WavFile
from edge_impulse_runner.eim import Eim
from edge_impulse_runner.errors import EimError, EimGone
from edge_impulse_runner.protocol import SharedMemory
from edgeml.errors import SourceError
from support import eventually

HELLO = (
    '{"id":1,"success":true,"model_parameters":{"input_features_count":4},'
    '"features_shm":{"name":"/%s","elements":4,"size_bytes":16}}'
)


def model(folder: Path, reply: bytes, before: str = "", then: str = "") -> Path:
    """An executable that runs `before`, answers one message with `reply`, and runs `then`."""
    path = folder / "hostile.eim"
    path.write_text(
        f"#!{sys.executable}\nimport os, signal, socket, sys, time\n{before}\n"
        "server = socket.socket(socket.AF_UNIX)\nserver.bind(sys.argv[1])\nserver.listen()\n"
        f"peer = server.accept()[0]\npeer.recv(65536)\npeer.sendall({reply!r})\n{then}\npeer.recv(65536)\n"
    )
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    "reply",
    [
        b'{"id":1,"success":true,"x":' + b"[" * 100_000,
        b'{"id":1,"success":true,"model_parameters":{"input_features_count":4,"x":' + b"[" * 500 + b"]" * 500 + b"}}",
        b'{"id":1,"success":true,"error":"\xff\xfe"}',
        b"\xff" * 1000,
        (HELLO % "a/../../etc/passwd").encode(),
        (HELLO % "a b").encode(),
        (HELLO.replace('"input_features_count":4', '"input_features_count":-1') % "a").encode(),
        (HELLO.replace('"input_features_count":4', '"input_features_count":1e18') % "a").encode(),
        (HELLO.replace('"input_features_count":4', '"input_features_count":4,"x":1e999') % "a").encode(),
        b'{"id":1,"success":true,"model_parameters":[]}',
        b"",
    ],
    ids=str,
)
def test_a_reply_of_any_kind_is_an_error_of_the_model(tmp_path: Path, no_leaks: None, reply: bytes) -> None:
    with pytest.raises(EimGone):
        Eim(model(tmp_path, reply + b"\0"), folder=tmp_path, start_timeout_s=20).open()


def test_output_without_end_is_kept_in_bounds(tmp_path: Path, no_leaks: None) -> None:
    flood = "for _ in range(400): os.write(1, b'x' * 65536)\nos.write(1, b'\\nlast words\\n')\nos._exit(3)"
    with pytest.raises(EimGone, match=r"exit code 3: x{500} \| last words"):
        Eim(model(tmp_path, b"", before=flood), folder=tmp_path, start_timeout_s=20).open()


@pytest.mark.parametrize("forget", [False, True], ids=["marked", "unmarked"])
def test_a_child_in_its_own_session_goes_with_its_model(tmp_path: Path, no_leaks: None, forget: bool) -> None:
    pid_file = tmp_path / "pid"
    environment = "{}" if forget else "os.environ"
    daemon = (
        "if os.fork() == 0:\n os.setsid()\n signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f" if os.fork() == 0: os.execve('/bin/sh', ['sh', '-c', 'echo $$>{pid_file};exec sleep 99'], {environment})\n"
        " os._exit(0)\nos.wait()\n"
    )
    eim = Eim(model(tmp_path, b"{}\0", before=daemon), folder=tmp_path, start_timeout_s=20)
    with pytest.raises(EimError):
        eim.open()
    pid = int(pid_file.read_text() or 0) if pid_file.exists() else 0
    eventually(lambda: not pid or not Path(f"/proc/{pid}").exists(), 5)


def test_memory_that_is_cut_short_ends_no_process(no_leaks: None, tag: str) -> None:
    path = Path(f"/dev/shm/shm-{tag}-cut")
    path.write_bytes(bytes(16))
    try:
        block = shared.Block(SharedMemory(name=path.name, elements=4, size_bytes=16))
        block.write(np.arange(4, dtype=np.float32))
        assert block.read() == [0, 1, 2, 3]
        os.truncate(path, 0)
        with pytest.raises(OSError, match="cut short"):
            block.read()
        block.close()
    finally:
        path.unlink()


def test_what_is_no_block_is_refused(tmp_path: Path, tag: str) -> None:
    link, pipe = Path(f"/dev/shm/shm-{tag}-link"), Path(f"/dev/shm/shm-{tag}-pipe")
    (tmp_path / "file").write_bytes(bytes(64))
    link.symlink_to(tmp_path / "file")
    os.mkfifo(pipe)
    try:
        for name, elements in ((link.name, 4), (pipe.name, 4), (pipe.name, 1 << 60), (pipe.name, -1)):
            with pytest.raises((OSError, ValueError)):
                shared.Block(SharedMemory(name=name, elements=elements, size_bytes=16))
    finally:
        link.unlink()
        pipe.unlink()


def microphone(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> Microphone:
    program = folder / "arecord"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return Microphone("default", 16000)


def test_overruns_without_end_stop_no_sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = "head -c 300000 /dev/zero | tr '\\0' o >&2; head -c 1000 /dev/zero; exec sleep 60"
    source = microphone(tmp_path, script, monkeypatch)
    try:
        assert source.read(20) == bytes(1000)
    finally:
        source.close()


def test_a_microphone_that_is_silent_for_long_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio, "STALL_S", 0.05)
    source = microphone(tmp_path, "exec sleep 60", monkeypatch)
    try:
        with pytest.raises(SourceError, match="no sound"):
            source.read(0.2)
    finally:
        source.close()


@pytest.mark.parametrize("extra", [b"\1", b"\1\2", b"\1\2\3"], ids=len)
def test_a_wav_that_ends_in_a_sample_is_heard_until_there(tmp_path: Path, extra: bytes) -> None:
    path = tmp_path / "a.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((2, 2, 1000, 0, "NONE", ""))
        file.writeframes(struct.pack("<4h", 1, 2, 3, 4))
    path.write_bytes(path.read_bytes() + extra)
    data = bytearray(path.read_bytes())
    data[40:44] = struct.pack("<I", 8 + len(extra))
    path.write_bytes(data)
    assert WavFile(path, 1000).read(5.0) == struct.pack("<2h", 1, 3)


def test_a_wav_file_wakes_rarely(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(bytes(2 * 3200))
    sound, heard, reads = WavFile(path, 16000), 0, 0
    while heard < 6400:
        heard += len(sound.read(5.0))
        reads += 1
    assert reads <= 5  # 0.2 s

import time
import wave
from pathlib import Path

import numpy as np
import pytest

from edge_impulse_runner.audio import AudioSource, Microphone, WavFile
from edge_impulse_runner.protocol import ModelParameters
from edge_impulse_runner.sources import Window
from edgeml.errors import SourceError

LISTENS = ModelParameters(
    input_features_count=16000, sensor=1, frequency=16000.0, slice_size=4000, use_continuous_mode=True
)
WINDOWED = ModelParameters(input_features_count=800, sensor=1, frequency=16000.0, slice_size=200)


def wav(path: Path, samples: int, rate: int = 16000, channels: int = 1, width: int = 2) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setparams((channels, width, rate, 0, "NONE", ""))
        ramp = np.repeat(np.arange(samples, dtype="<i2"), channels)
        ramp[1::2] = -1 if channels == 2 else ramp[1::2]
        file.writeframes(ramp.tobytes())
    return path


def arecord(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An `arecord` on PATH that runs `script` and keeps its arguments."""
    program = folder / "arecord"
    program.write_text(f'#!/bin/sh\necho "$@" > {folder}/arguments\n{script}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def following(source: AudioSource, timeout: float = 5.0) -> Window:
    window = source.next(timeout)
    assert window is not None
    return window


def test_a_wav_file_sounds_at_its_own_pace_and_ends(tmp_path: Path) -> None:
    source = AudioSource(WavFile(wav(tmp_path / "a.wav", 2000), 16000), WINDOWED)
    began = time.monotonic()
    first, second = following(source), following(source)
    assert 0.09 < time.monotonic() - began < 5.0  # 1600 samples are 100 ms
    assert first.features.tolist() == list(range(800))
    assert second.features.tolist() == list(range(800, 1600))
    assert not first.continuous
    with pytest.raises(SourceError, match="has ended"):
        source.next(5.0)


def test_the_first_channel_of_several(tmp_path: Path) -> None:
    source = AudioSource(WavFile(wav(tmp_path / "a.wav", 1000, channels=2), 16000), WINDOWED)
    assert following(source).features.tolist() == list(range(800))


@pytest.mark.parametrize(("options", "words"), [({"rate": 44100}, "44100 Hz"), ({"width": 1}, "8 bit")])
def test_a_wav_file_that_the_model_cannot_hear(tmp_path: Path, options: dict[str, int], words: str) -> None:
    with pytest.raises(SourceError, match=words):
        WavFile(wav(tmp_path / "a.wav", 10, **options), 16000)


@pytest.mark.parametrize("content", [None, b"", b"RIFF....WAVE", b"\0" * 100])
def test_a_broken_wav_file(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "a.wav"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SourceError, match=r"a\.wav"):
        WavFile(path, 16000)


def test_a_microphone_is_heard_in_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.arange(12000, dtype="<i2").tofile(tmp_path / "sound")
    arecord(tmp_path, f"cat {tmp_path}/sound; exec sleep 60", monkeypatch)
    source = AudioSource(Microphone("plughw:1,0", 16000), LISTENS)
    try:
        slices = [following(source) for _ in range(3)]
        assert source.next(0.05) is None
    finally:
        source.close()
    assert np.concatenate([s.features for s in slices]).tolist() == list(range(12000))
    assert all(s.continuous for s in slices)
    assert (tmp_path / "arguments").read_text() == "-q -D plughw:1,0 -f S16_LE -r 16000 -c 1 -t raw\n"


def test_a_microphone_that_breaks_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arecord(tmp_path, "echo 'audio open error: No such device' >&2; exit 1", monkeypatch)
    microphone = Microphone("hw:9", 16000)
    with pytest.raises(SourceError, match="hw:9: audio open error: No such device"):
        microphone.read(5.0)
    microphone.close()


def test_no_arecord(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SourceError, match="alsa-utils"):
        Microphone("default", 16000)

"""Sound for audio models: 16 bit mono samples from ALSA's arecord, or from a WAV file at its own pace."""

import contextlib
import os
import selectors
import subprocess
import time
import wave
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge_impulse_runner.protocol import ModelParameters
from edge_impulse_runner.sources import Window
from edgeml.child import Child, Program
from edgeml.errors import ChildError, SourceError

STALL_S = 10.0  # a microphone that gives nothing for so long has to be started anew
PERIOD_S = 0.05  # a file's sound is handed out in pieces of that length
_LAST_WORDS = 500
_PIPE_BYTES = 1 << 16


class Sound(Protocol):
    def read(self, timeout: float) -> bytes:
        """What has come, little-endian int16; empty when nothing came in `timeout` seconds. Raises SourceError."""

    def close(self) -> None: ...


class AudioSource:
    """Slices of a stream for models that listen continuously, else whole windows, one after the other."""

    def __init__(self, sound: Sound, parameters: ModelParameters) -> None:
        self._sound = sound
        self._continuous = parameters.use_continuous_mode and parameters.slice_size > 0
        self._bytes = 2 * (parameters.slice_size if self._continuous else parameters.input_features_count)
        self._heard = bytearray()

    def next(self, timeout: float) -> Window | None:
        deadline = time.monotonic() + timeout
        while len(self._heard) < self._bytes:
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            try:
                self._heard += self._sound.read(left)
            except SourceError:
                raise
            except Exception as error:  # of pipes, selectors and numpy
                raise SourceError(f"sound: {str(error) or type(error).__name__}") from error
        samples: NDArray[np.float32] = np.frombuffer(self._heard[: self._bytes], dtype="<i2").astype(np.float32)
        del self._heard[: self._bytes]
        return Window(samples, time.monotonic(), continuous=self._continuous)

    def close(self) -> None:
        self._sound.close()


class Microphone:
    """An ALSA device (`default`, `hw:1,0`, `plughw:...`) through arecord. Raises SourceError when it cannot start."""

    def __init__(self, device: str, rate: int) -> None:
        command = ["arecord", "-q", "-D", device, "-f", "S16_LE", "-r", str(rate), "-c", "1", "-t", "raw"]
        try:
            self._child = Child(Program(command), stderr=subprocess.PIPE)
        except ChildError as error:
            if isinstance(error.__cause__, OSError):
                raise SourceError(f"arecord: {error}; it comes with the package alsa-utils") from error
            raise SourceError(f"microphone {device!r}: {error}") from error  # as a NUL in its name
        self._stdout, self._stderr = self._child.stdout, self._child.stderr
        self._selector = selectors.DefaultSelector()
        for pipe in (self._stdout, self._stderr):
            self._selector.register(pipe, selectors.EVENT_READ)
        self._device, self._words = device, b""
        self._heard_at = time.monotonic()

    def read(self, timeout: float) -> bytes:
        deadline = time.monotonic() + timeout
        while True:
            ready = [key.fileobj for key, _ in self._selector.select(max(0.0, deadline - time.monotonic()))]
            if self._stderr in ready:  # a pipe that nobody reads fills up with overruns, and then no sound comes
                self._listen()
            if self._stdout in ready:
                heard = os.read(self._stdout.fileno(), _PIPE_BYTES)
                if not heard:
                    raise SourceError(self._ended())
                self._heard_at = time.monotonic()
                return heard
            if time.monotonic() - self._heard_at > STALL_S:
                raise SourceError(f"microphone {self._device}: no sound for {STALL_S:g} s; {self._said()}")
            if time.monotonic() >= deadline:
                return b""

    def _listen(self) -> None:
        """Keep the last of what arecord says; it may go on without saying anything more."""
        words = os.read(self._stderr.fileno(), _PIPE_BYTES)
        if not words:
            self._selector.unregister(self._stderr)
        self._words = (self._words + words)[-_LAST_WORDS:]

    def _ended(self) -> str:
        while self._stderr in {key.fileobj for key, _ in self._selector.select(0)}:
            before = len(self._selector.get_map())
            self._listen()
            if len(self._selector.get_map()) < before:
                break
        return f"microphone {self._device}: {self._said()}"

    def _said(self) -> str:
        return self._words.decode(errors="replace").strip() or "arecord ended without a word"

    def close(self) -> None:
        self._child.stop()
        self._selector.close()
        self._stdout.close()
        self._stderr.close()


class WavFile:
    """The first channel of a 16 bit WAV file, as fast as it would sound. Ends with SourceError."""

    def __init__(self, path: Path, rate: int) -> None:
        try:
            with contextlib.closing(wave.open(str(path), "rb")) as file:
                self._check(path, file, rate)
                channels = file.getnchannels()
                data = file.readframes(file.getnframes())
                whole = len(data) - len(data) % (2 * channels)  # a recording that was cut off may end in a sample
                self._samples = np.frombuffer(data[:whole], dtype="<i2")[::channels]
        except SourceError:
            raise
        except Exception as error:  # wave, chunk, struct and numpy share no base class
            raise SourceError(f"{path}: {str(error) or type(error).__name__}") from error
        self._path, self._rate = path, rate
        self._began, self._at = time.monotonic(), 0

    def read(self, timeout: float) -> bytes:
        if self._at >= len(self._samples):
            raise SourceError(f"{self._path}: the file has ended")
        piece = min(max(1, int(self._rate * PERIOD_S)), len(self._samples) - self._at)
        due = self._began + (self._at + piece) / self._rate
        time.sleep(min(timeout, max(0.0, due - time.monotonic())))
        until = min(len(self._samples), int((time.monotonic() - self._began) * self._rate))
        heard, self._at = self._samples[self._at : until], max(self._at, until)
        return heard.tobytes()

    def close(self) -> None:
        pass

    @staticmethod
    def _check(path: Path, file: wave.Wave_read, rate: int) -> None:
        bits, found = 8 * file.getsampwidth(), file.getframerate()
        if (bits, found) != (16, rate):
            raise SourceError(f"{path}: {bits} bit at {found} Hz; the model wants 16 bit at {rate} Hz")

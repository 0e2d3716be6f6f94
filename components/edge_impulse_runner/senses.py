"""The source that a model asks for, made from the configuration."""

from pathlib import Path

from edge_impulse_runner.audio import AudioSource, Microphone, WavFile
from edge_impulse_runner.config import Config
from edge_impulse_runner.protocol import CAMERA, MICROPHONE, Hello
from edge_impulse_runner.sources import CameraSource, SensorSource, Source
from edgeml import messages
from edgeml.errors import ConfigError
from edgeml.health import Health
from edgeml.ipc import Ipc, Subscription


class Senses:
    """Opens sources. One subscription feeds the sensor of the day, and another sensor of its topic after that."""

    def __init__(self, ipc: Ipc, health: Health) -> None:
        self._ipc, self._health = ipc, health
        self._sensor: tuple[str, SensorSource, Subscription] | None = None

    def open(self, hello: Hello, config: Config) -> Source:
        """Raises SourceError, ConfigError when the configuration does not say where the samples come from."""
        parameters = hello.model_parameters
        given = config.input
        if parameters.sensor == CAMERA or parameters.image_input_width:
            mode = given.resize_mode or parameters.image_resize_mode
            return CameraSource(given.camera, Path(given.ring_directory), parameters, mode)
        if parameters.sensor == MICROPHONE:
            rate = round(parameters.frequency)
            sound = WavFile(Path(given.audio_file), rate) if given.audio_file else Microphone(given.audio_device, rate)
            return AudioSource(sound, parameters)
        topic, axes = given.topic, given.axes
        if not topic and given.serial_port:
            topic, axes = messages.serial_record(given.serial_port), [f"record.{axis}" for axis in axes]
        if not topic:
            raise ConfigError("input", f"the model's sensor is {hello.sensor_type}: set topic or serial_port")
        sensor = SensorSource(parameters, axes, given.stride_ms / 1000, self._health)
        self._feed(topic, sensor)
        return sensor

    def _feed(self, topic: str, sensor: SensorSource) -> None:
        """One sensor at a time: of the topic before nothing is heard any more."""
        former = self._sensor
        if former is not None and former[0] == topic:
            self._sensor = topic, sensor, former[2]
            return
        self._sensor = topic, sensor, self._ipc.subscribe(topic, self._arrived)
        if former is not None:
            former[2].close()

    def _arrived(self, topic: str, payload: bytes) -> None:
        sensor = self._sensor
        if sensor is not None and sensor[0] == topic:
            sensor[1].feed(payload)

"""The device's name in topics, and the topics."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgeml.edge_impulse.parameters import UNSET
from edgeml.fields import check_topic

DEFAULT_PREFIX = "/edgeimpulse/device"


def device_name(configured: str, mac: str) -> str:
    """`<configured>_<mac without colons>`, free of blanks and of what MQTT gives a meaning (`/`, `+`, `#`)."""
    name = configured.replace(UNSET, "").replace("'", "")
    name = "".join("_" if letter.isspace() or letter in "/+#" else letter for letter in name)
    return "_".join(part for part in (name, mac.replace(":", "")) if part)


def default_mac(proc: Path = Path("/proc"), sys: Path = Path("/sys")) -> str:
    """MAC address of the interface that holds the IPv4 default route; empty when there is none."""
    try:
        routes = [line.split() for line in (proc / "net/route").read_text().splitlines()[1:]]
        interface = next(fields[0] for fields in routes if len(fields) > 1 and fields[1] == "00000000")
        return (sys / "class/net" / interface / "address").read_text().strip()
    except (OSError, StopIteration):
        return ""


@dataclass(frozen=True)
class Topics:
    """The four IoT Core topics of one device."""

    device: str
    prefix: str = DEFAULT_PREFIX

    def check(self, path: str) -> None:
        """Raises ConfigError about `path` for topics that can never work."""
        for topic in (self.inference, self.metrics, self.command_input, self.command_output):
            check_topic(path, topic)

    @property
    def inference(self) -> str:
        return f"{self.prefix}/{self.device}/inference/output"

    @property
    def metrics(self) -> str:
        return f"{self.prefix}/{self.device}/model/metrics"

    @property
    def command_input(self) -> str:
        return f"{self.prefix}/{self.device}/command/input"

    @property
    def command_output(self) -> str:
        return f"{self.prefix}/{self.device}/command/output"


def board_topics(boards: Mapping[str, str], common: str, mac: str, prefix: str = DEFAULT_PREFIX) -> dict[str, Topics]:
    """The topics of serial boards by port; `boards` has each port's own device name, empty where it has none.

    Several boards must not share topics: `common`, the name for all, is set apart by their ports' names.
    """
    return {
        port: Topics(device_name(own or (common if len(boards) == 1 else f"{common}_{port}"), mac), prefix)
        for port, own in boards.items()
    }

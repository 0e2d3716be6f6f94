"""Edge Impulse firmware at the other end: its AT commands, and starting inference with them."""

import re
import time
from dataclasses import dataclass, field

from edgeml.edge_impulse.results import ModelInfo
from edgeml.errors import SourceError
from serial_scraper.lines import text
from serial_scraper.link import Link

BANNER = b"Type AT+HELP to see"  # last line of a boot: inference is not running any more
BREAK = "b\r"
_COMMANDS = {"run": "AT+RUNIMPULSE", "run_continuous": "AT+RUNIMPULSECONT"}
PROMPT_TIMEOUT_S, ANSWER_TIMEOUT_S = 5.0, 2.0
_MAX_ANSWER = 65_536
_KEY = re.compile(r"[A-Za-z][A-Za-z .]{0,63}")


@dataclass(frozen=True)
class Firmware:
    """What a board says of itself in answer to AT+CONFIG? and AT+INFO, as `key: value`."""

    config: dict[str, str] = field(default_factory=dict)
    info: dict[str, str] = field(default_factory=dict)

    @property
    def model(self) -> ModelInfo:
        """For `get_model_info`; name and version are empty with firmware that has no AT+INFO."""
        version = self.info.get("Model deploy version", "")
        parameters = {key.lower().replace(" ", "_"): value for key, value in {**self.config, **self.info}.items()}
        return ModelInfo(
            name=self.info.get("ML model name", ""), version=f"v{version}" if version else "", parameters=parameters
        )


def is_prompt(partial: bytes) -> bool:
    """Whether an unfinished line is the prompt, after which nothing comes unasked."""
    return text(partial)[0] == "> "


def start(link: Link, mode: str) -> Firmware:
    """Interrupt what runs, ask who it is, and start inference. Raises SourceError when nobody answers."""
    link.type(BREAK)
    _until_prompt(link, "", PROMPT_TIMEOUT_S)
    config = _fields(_ask(link, "AT+CONFIG?"))
    info = _fields(_ask(link, "AT+INFO"))
    link.type(f"{_COMMANDS[mode]}\r")
    return Firmware(config, info)


def _ask(link: Link, command: str) -> str:
    link.type(f"{command}\r")
    return _until_prompt(link, command, ANSWER_TIMEOUT_S).partition(command)[2]


def _until_prompt(link: Link, echo: str, timeout: float) -> str:
    """Everything up to a prompt that comes after `echo`: an earlier one is not the answer."""
    deadline = time.monotonic() + timeout
    received = b""
    while (left := deadline - time.monotonic()) > 0:
        received = (received + link.read(left))[-_MAX_ANSWER:]
        said, _ = text(received)
        if (said.endswith(("\n> ", "\r> ")) or said == "> ") and echo in said:
            return said.replace("\r", "\n")
    what = f"no answer to {echo}" if echo else "no prompt"
    raise SourceError(f"{link.path}: {what} in {timeout:g} s: no Edge Impulse firmware, or not at this baud rate")


def _fields(answer: str) -> dict[str, str]:
    """The `key: value` lines of an answer; AT+INFO has them between asterisks."""
    found = {}
    for line in answer.split("\n"):
        name, colon, value = line.removeprefix("*").partition(":")
        key, text = name.strip(), value.strip(" \t*")
        if colon and text and _KEY.fullmatch(key):
            found[key] = text
    return found

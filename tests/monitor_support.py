"""What tests of edgeml.Monitor share."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from edgeml.health import Health
from edgeml.messages import Problem
from monitor.access import Access
from monitor.app import application
from monitor.pictures import Pictures
from monitor.state import State
from monitor.vitals.limits import CheckName

# On a free port, and what the machine that runs the test lacks is no problem.
QUIET: dict[str, Any] = {"port": 0, "vitals": {"skip": list(get_args(CheckName))}}


def page(static: Path, access: Access | None = None, problems: Sequence[Problem] = ()) -> Any:
    """The application of a device without cameras, of which nothing is known but its `problems`."""
    state = State("thing", "1", lambda: problems)
    pictures = Pictures(state, Health("edgeml.Monitor", "1"), lambda name, work: None)
    return application(static, state, pictures, lambda camera, command: None, access)

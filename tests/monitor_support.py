"""What tests of edgeml.Monitor share."""

from typing import Any, get_args

from monitor.vitals.limits import CheckName

# On a free port, and what the machine that runs the test lacks is no problem.
QUIET: dict[str, Any] = {"port": 0, "vitals": {"skip": list(get_args(CheckName))}}

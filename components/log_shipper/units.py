"""Which units' entries in the journal are shipped, and as whose: the settings for components and the core apply.

On Nucleus Lite the component X is the unit `ggl.X.service`, its installation `ggl.X.install.service`, and the core's
own parts are `ggl.core.*`.
"""

import fnmatch
import logging
import re
import subprocess

from edgeml.log import kv
from log_shipper.config import Config, Level, Options
from log_shipper.scan import SYSTEM_KIND, USER_KIND, Log

log = logging.getLogger(__name__)

_LIST_TIMEOUT_S = 20.0
_PREFIX, _CORE = "ggl.", "core."
_TALKATIVE = ("core.ggipcd", "core.iotcored")  # they write a line for each message, also for each that we publish
_OWN = "edgeml.LogShipper"
_PHASE = re.compile(r"\.(?:install|bootstrap|startup|recover|shutdown)$")
_WILDCARD = re.compile(r"[*?\[]")


class Units:
    """What the configuration says of units."""

    def __init__(self, config: Config) -> None:
        uploader = config.logs_uploader_configuration
        self._patterns = config.journald.units
        self._level = config.journald.minimum_log_level
        self._system = uploader.system_logs_configuration
        self._components = config.component_patterns
        listed = {entry.component_name: entry for entry in uploader.component_logs_configuration}
        self._named = {**listed, **uploader.component_logs_configuration_map}

    def log_of(self, unit: str) -> Log | None:
        """The log that a unit's entries belong to; None if they are not asked for.

        A pattern no narrower than `ggl.*` only says where to look: then `components` and systemLogsConfiguration
        choose. A narrower one chooses itself. The talkative parts of the core, and the shipper, must be named whole.
        """
        exact = any(pattern in (unit, unit.removesuffix(".service")) for pattern in self._patterns)
        matching = [pattern for pattern in self._patterns if fnmatch.fnmatchcase(unit, pattern)]
        if not (exact or matching):
            return None
        name = component_of(unit)
        if not unit.startswith(_PREFIX):
            return self._log(name, USER_KIND, Options())
        chosen = exact or any(len(_WILDCARD.split(pattern)[0]) > len(_PREFIX) for pattern in matching)
        if name.startswith(_CORE):
            if not exact and (name in _TALKATIVE or not (chosen or self._system.upload_to_cloud_watch)):
                return None
            return self._log(name, SYSTEM_KIND, self._system)
        named = name in self._named or name in self._components
        if name == _OWN and not (exact or named):
            return None
        if chosen or named or any(fnmatch.fnmatchcase(name, pattern) for pattern in self._components):
            return self._log(name, USER_KIND, self._named.get(name, Options()))
        return None

    def _log(self, name: str, kind: str, options: Options) -> Log:
        """The level is that of the component where it has one of its own, else the journal's."""
        default: Level = Options().minimum_log_level
        level = self._level if options.minimum_log_level == default else options.minimum_log_level
        return Log(name, kind, Options(minimum_log_level=level))


def component_of(unit: str) -> str:
    """`com.example.A` of Nucleus Lite's `ggl.com.example.A.service`; the name of any other unit without its kind."""
    name = unit.removesuffix(".service")
    return _PHASE.sub("", name.removeprefix(_PREFIX)) if name.startswith(_PREFIX) else name


def all_units() -> list[str]:
    """Units with entries in the journal; none if journalctl does not answer."""
    command = ["journalctl", "--quiet", "--field=_SYSTEMD_UNIT"]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_LIST_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        log.error("cannot list the units in the journal %s", kv(reason=error))
        return []
    return sorted(unit for unit in done.stdout.decode(errors="replace").split("\n") if unit)

"""Which variables sudo takes from a component's environment, although the Java nucleus calls it with -E.

The names are sudo's built-in env_delete list (`sudo -V` as root prints it), and those that it sets itself.
"""

import re

_DELETED = re.compile(
    r"RUBYOPT|RUBYLIB|PYTHONUSERBASE|PYTHONINSPECT|PYTHONPATH|PYTHONHOME|TMPPREFIX|ZDOTDIR|READNULLCMD|NULLCMD|FPATH"
    r"|PERL5DB|PERL5OPT|PERL5LIB|PERLLIB|PERLIO_DEBUG|JAVA_TOOL_OPTIONS|SHELLOPTS|BASHOPTS|GLOBIGNORE|PS4|BASH_ENV|ENV"
    r"|TERMCAP|TERMPATH|TERMINFO_DIRS|TERMINFO|_RLD.*|LD_.*|PATH_LOCALE|NLSPATH|HOSTALIASES|RES_OPTIONS|LOCALDOMAIN"
    r"|CDPATH|IFS"
)
_SET = re.compile(r"HOME|LOGNAME|MAIL|PATH|SHELL|SUDO_.*|USER")


def is_stripped(name: str, value: str = "") -> bool:
    """Whether `name=value` is gone, or has another value, once sudo has started a script."""
    function = value.startswith("()")  # `*=()*`: how bash exports one
    return function or bool(_DELETED.fullmatch(name) or _SET.fullmatch(name))

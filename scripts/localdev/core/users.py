"""As whom components run.

The Java nucleus of a usual device is root and starts each script by `sudo -n -E -H -u USER -g GROUP -- sh -c SCRIPT`.
So does this core where it is root and can; else every component runs as the core's own user, and what sudo would have
removed is removed from Setenv.
"""

import fnmatch
import grp
import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from localdev.core.profiles import Profile

DEFAULT_USERS = ("ggc_user:ggc_group", "ggc_user", "nobody")
TRIAL_SECONDS = 10.0

# What sudo removes from the environment even with -E (`sudo -V` as root lists it), but for exported functions.
REMOVED = (
    *("IFS", "CDPATH", "LOCALDOMAIN", "RES_OPTIONS", "HOSTALIASES", "NLSPATH", "PATH_LOCALE", "LD_*", "_RLD*"),
    *("TERMINFO", "TERMINFO_DIRS", "TERMPATH", "TERMCAP", "ENV", "BASH_ENV", "PS4", "GLOBIGNORE", "BASHOPTS"),
    *("SHELLOPTS", "JAVA_TOOL_OPTIONS", "PERLIO_DEBUG", "PERLLIB", "PERL5LIB", "PERL5OPT", "PERL5DB", "FPATH"),
    *("NULLCMD", "READNULLCMD", "ZDOTDIR", "TMPPREFIX", "PYTHONHOME", "PYTHONPATH", "PYTHONINSPECT"),
    *("PYTHONUSERBASE", "RUBYLIB", "RUBYOPT"),
)


@dataclass(frozen=True)
class User:
    """A user and a group of this machine."""

    name: str
    group: str
    uid: int
    gid: int

    def __str__(self) -> str:
        return f"{self.name}:{self.group}"


def find_user(text: str) -> User:
    """`USER` or `USER:GROUP`, by name or number; without a group, the user's own. KeyError if there is none such."""
    user, _, group = text.partition(":")
    account = pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
    if not group:
        found = grp.getgrgid(account.pw_gid)
    else:
        found = grp.getgrgid(int(group)) if group.isdecimal() else grp.getgrnam(group)
    return User(account.pw_name, found.gr_name, account.pw_uid, found.gr_gid)


class Users:
    """Decides once, when a core starts, how its components run; `note` says it in one line."""

    def __init__(self, profile: Profile, root: Path, wanted: str | None) -> None:
        self._java = profile is Profile.JAVA
        self.default: User | None = None
        if not self._java:
            self.note = "components run as the core's own user"
            return
        try:
            self.default = _chosen(root, wanted)
            self.note = (
                f"components run as {self.default}, through sudo" if self.default.uid else "components run as root"
            )
        except _UnusableError as reason:
            self.note = f"components run as the core's own user, not as on a device: {reason}"

    def of(self, run_with: str | None) -> User | None:
        """Whom a component runs as; None for the core's own user. KeyError if `run_with` names nobody."""
        return find_user(run_with) if self.default and run_with else self.default

    def command(self, script: str, user: User | None, *, privileged: bool) -> list[str]:
        """What runs a script. Privileged steps and those of root run as the core does, as in the nucleus."""
        shell = ["sh", "-c", script]
        if user is None or user.uid == 0 or privileged:
            return shell
        return [*_sudo(user), *shell]

    def environment(
        self, base: Mapping[str, str], setenv: Mapping[str, str], user: User | None, *, privileged: bool
    ) -> dict[str, str]:
        """The environment of a step. Where sudo should have run and does not, Setenv loses what it would lose."""
        if self._java and user is None and not privileged:
            setenv = {name: value for name, value in setenv.items() if not is_removed(name)}
        return {**base, **setenv}


def is_removed(name: str) -> bool:
    """Whether sudo takes this variable away from what it runs."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in REMOVED)


def give(path: Path, user: User | None) -> None:
    """Makes a folder and all below it a user's, unless the folder is already; without a user it stays as it is."""
    if user is None or path.lstat().st_uid == user.uid:
        return
    for folder, folders, files in os.walk(path):
        for name in (*folders, *files):
            os.chown(Path(folder, name), user.uid, user.gid, follow_symlinks=False)
    os.chown(path, user.uid, user.gid)  # last: an interrupted change is made anew


class _UnusableError(Exception):
    """Components cannot run as another user; the text says why."""


def _chosen(root: Path, wanted: str | None) -> User:
    if os.geteuid() != 0:
        raise _UnusableError("the core is not run by root")
    user = _first_user((wanted,) if wanted else DEFAULT_USERS)
    if user.uid == 0:
        return user
    if shutil.which("sudo") is None:
        raise _UnusableError("there is no sudo here")
    python = _try(user, root / "work")
    for interpreter in _lent_interpreters(root):
        if interpreter != python:
            raise _UnusableError(f"the environments lent to it need {interpreter}, {user.name}'s python3 is {python}")
    return user


def _first_user(names: tuple[str, ...]) -> User:
    for name in names:
        try:
            return find_user(name)
        except KeyError:
            continue
    raise _UnusableError(f"there is no user {' or '.join(names)} here")


def _try(user: User, folder: Path) -> Path | None:
    """Enters a folder as a user, and answers which python3 that user has."""
    trial = [*_sudo(user), "sh", "-c", 'cd "$0" && { command -v python3 || true; }', str(folder)]
    try:
        done = subprocess.run(
            trial, check=False, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, timeout=TRIAL_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _UnusableError(f"sudo does not work: {error}") from error
    if done.returncode == 0:
        path = done.stdout.decode(errors="replace").strip()
        return Path(path).resolve() if path else None
    closed = next((path for path in (*reversed(folder.parents), folder) if not _may_enter(path, user)), None)
    if closed:
        raise _UnusableError(f"{user.name} cannot enter {closed}")
    reason = (done.stderr.decode(errors="replace").strip() or f"exit code {done.returncode}").splitlines()[-1]
    raise _UnusableError(f"sudo does not work: {reason}")


def _may_enter(folder: Path, user: User) -> bool:
    status = folder.stat()
    shift = 6 if status.st_uid == user.uid else 3 if status.st_gid == user.gid else 0
    return bool(status.st_mode >> shift & 1)


def _lent_interpreters(root: Path) -> Iterator[Path]:
    """The interpreters of environments that were linked into work folders from elsewhere."""
    for link in sorted((root / "work").glob("*/venv")):
        if link.is_symlink() and not link.resolve().is_relative_to(root):
            yield (link / "bin" / "python").resolve()


def _sudo(user: User) -> list[str]:
    return ["sudo", "-n", "-E", "-H", "-u", user.name, "-g", user.group, "--"]

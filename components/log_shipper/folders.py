"""Folders that others can write into, opened so that nobody makes us read or delete what is not his to show.

The shipper may read everything, so a link in a folder of logs could send /etc/shadow to the cloud. Paths are walked
descriptor by descriptor, and links are followed only where root, or the user that we are, made them. A log is a regular
file with one name. Its owner matters where another user than root or himself can write into its folder, who could have
moved a file there that he may not read: it must belong to one of those who can write there, and not everybody may.
Whoever owns a folder further up can put another in place of what lies in it: below his only his own is read, and what
all may read. (A group that may write further up, as syslog's in /var/log of Ubuntu, is trusted with that.)
"""

import errno
import grp
import os
import pwd
import stat
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_WALK = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LIST = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
_ACL_USER, _ACL_GROUP = 0x02, 0x08
_MAX_LINKS = 40  # as the kernel
_MEMBERS_FOR_S = 60.0

Writers = frozenset[int] | None
"""Users, other than root and ourselves, who may write into a folder; None is everybody."""

_members: dict[int, tuple[float, frozenset[int]]] = {}


class ForgedError(OSError):
    """A link or a file that somebody could have put there to show us what is not his."""


@dataclass(frozen=True)
class Place:
    """An open folder. `others` may write into it, `movers` own folders above it; neither are root or ourselves."""

    descriptor: int
    status: os.stat_result
    others: Writers
    movers: frozenset[int]

    def objection(self, file: os.stat_result) -> str:
        """Why a file in it is no log to be read or deleted, empty if it is one."""
        if stat.S_ISLNK(file.st_mode):
            return "it is a link"
        if not stat.S_ISREG(file.st_mode):
            return "it is no regular file"
        if file.st_nlink > 1:
            return f"it has {file.st_nlink} names (hard links)"
        if self.others is None:
            return "everybody can write into its folder"
        if self.others and file.st_uid not in (self.status.st_uid, *self.others):
            return f"user {_name(file.st_uid)} owns it, and user {_name(min(self.others))} can write into its folder"
        if self.movers and not self.movers & {file.st_uid, self.status.st_uid} and not file.st_mode & stat.S_IROTH:
            return _moved(file.st_uid, self.movers)
        return ""


@contextmanager
def opened(path: str) -> Iterator[Place]:
    """A folder, for as long as the block lasts. OSError, ForgedError if a link led there."""
    descriptor, movers = _walk(path)
    try:
        listed = os.open(".", _LIST, dir_fd=descriptor)
    finally:
        os.close(descriptor)
    try:
        status = os.fstat(listed)
        yield Place(listed, status, _writers(listed, status), movers)
    finally:
        os.close(listed)


def _writers(descriptor: int, folder: os.stat_result) -> Writers:
    """Who may write into an open folder: its owner, who can give himself that right, and whom mode and ACL name."""
    if folder.st_mode & stat.S_IWOTH:
        return None
    found = {folder.st_uid}
    if folder.st_mode & stat.S_IWGRP:  # with an ACL these bits are what it gives at most
        found |= _group(folder.st_gid)
        for tag, rights, number in _acl(descriptor):
            if rights & os.W_OK and tag in (_ACL_USER, _ACL_GROUP):
                found |= {number} if tag == _ACL_USER else _group(number)
    return frozenset(found - {0, os.geteuid()})


def _acl(descriptor: int) -> Iterator[tuple[int, int, int]]:
    """Tag, rights and user or group of each entry of a folder's ACL (linux/posix_acl_xattr.h); none without one."""
    try:
        found = os.getxattr(descriptor, "system.posix_acl_access")
    except OSError:
        return iter(())
    return struct.iter_unpack("<HHI", found[4 : 4 + (len(found) - 4) // 8 * 8])


def open_file(path: str, key: tuple[int, int]) -> int:
    """A descriptor to read the file with this device and inode number.

    Nothing but a regular file is ever opened for reading, so no pipe or device notices. FileNotFoundError if it is
    another one by now, ForgedError if it is no log, else OSError.
    """
    folder, _, name = path.rpartition("/")
    with opened(folder or "/") as parent:
        found = os.open(name, _FILE, dir_fd=parent.descriptor)
        try:
            status = os.fstat(found)
            if (status.st_dev, status.st_ino) != key:
                raise FileNotFoundError(errno.ENOENT, "another file by now", path)
            if reason := parent.objection(status):
                raise ForgedError(errno.EPERM, reason, path)
            return os.open(f"/proc/self/fd/{found}", _READ)
        finally:
            os.close(found)


def _walk(path: str) -> tuple[int, frozenset[int]]:
    """A descriptor of the folder, and who owns folders above it."""
    parts = path.split("/")[::-1]
    links, owners, trusted = 0, frozenset[int](), {0, os.geteuid()}
    current = os.open("/", _WALK)
    try:
        while parts:
            name = parts.pop()
            if name in ("", "."):
                continue
            try:
                step = os.open(name, _WALK, dir_fd=current)
            except NotADirectoryError:
                target = _link(current, name, path)
                links += 1
                if links > _MAX_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path) from None
                parts += target.split("/")[::-1]
                if not target.startswith("/"):
                    continue
                step = os.open("/", _WALK)
            above = os.fstat(current).st_uid
            os.close(current)
            current = step
            if above not in trusted:
                owners |= {above}
            if owners and (found := os.fstat(step)).st_uid not in owners and not found.st_mode & stat.S_IXOTH:
                raise ForgedError(errno.EPERM, _moved(found.st_uid, owners), path)
    except BaseException:
        os.close(current)
        raise
    return current, owners


def _moved(owner: int, movers: frozenset[int]) -> str:
    return (
        f"user {_name(owner)} owns it, it is not open to all, and user {_name(min(movers))}, who owns a folder above, "
        "could have put it there"
    )


def _link(folder: int, name: str, path: str) -> str:
    """Where a link leads that root or we made, in a folder of root's or ours."""
    try:
        target = os.readlink(name, dir_fd=folder)
    except OSError as error:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path) from error
    trusted = {0, os.geteuid()}
    above, link = os.fstat(folder), os.lstat(name, dir_fd=folder)
    everybody = above.st_mode & stat.S_IWOTH and not above.st_mode & stat.S_ISVTX
    if everybody or above.st_uid not in trusted or link.st_uid not in trusted:
        raise ForgedError(errno.EPERM, f"{name} in it is a link of user {_name(link.st_uid)}", path)
    return target


def _group(gid: int) -> frozenset[int]:
    """Users in a group, by the user database, asked once a minute."""
    known = _members.get(gid)
    now = time.monotonic()
    if known is None or now - known[0] > _MEMBERS_FOR_S:
        users = pwd.getpwall()
        try:
            names = set(grp.getgrgid(gid).gr_mem)
        except KeyError:
            names = set()
        known = _members[gid] = now, frozenset(u.pw_uid for u in users if u.pw_gid == gid or u.pw_name in names)
    return known[1]


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)

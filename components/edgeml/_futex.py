"""Wake-up and memory order between processes that share a mapping, with no extension module.

The wake-up is the kernel's futex, called through ctypes (which releases the GIL). Where it cannot be had (unknown
machine, seccomp) a waiter sleeps in short naps instead.
"""

import ctypes
import errno
import os
import platform
import sys
import threading
import time

_WAIT, _WAKE = 0, 1  # <linux/futex.h>; without FUTEX_PRIVATE_FLAG: the word is shared between processes
_EVERYONE = 2**31 - 1
_NAP_S = 0.001


class _Timespec(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]


def _futex_number() -> int | None:
    """Number of the futex call for the ABI of this process; a 32-bit one may run under a 64-bit kernel."""
    machine = platform.machine()
    if sys.maxsize > 2**32:
        return {"x86_64": 202, "aarch64": 98}.get(machine)
    return 240 if machine.startswith(("arm", "aarch64")) else None


_number = _futex_number()
_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.restype = ctypes.c_long


def wait(address: int, expected: int, timeout: float) -> None:
    """Sleep until the 32-bit word at `address` is woken, at most `timeout` seconds; at once if it is not `expected`.

    May return early for no reason: look at the state again.
    """
    global _number
    if _number is None:
        time.sleep(min(timeout, _NAP_S))
        return
    limit = _Timespec(int(timeout), int(timeout % 1 * 1e9))
    done = _syscall(
        ctypes.c_long(_number),
        ctypes.c_void_p(address),
        ctypes.c_int(_WAIT),
        ctypes.c_uint32(expected),
        ctypes.byref(limit),
        None,
        ctypes.c_int(0),
    )
    if done == 0:
        return
    reason = ctypes.get_errno()
    if reason in (errno.ENOSYS, errno.EPERM, errno.EACCES):
        _number = None
    elif reason not in (errno.EAGAIN, errno.EINTR, errno.ETIMEDOUT):
        raise OSError(reason, os.strerror(reason))


def wake(address: int) -> None:
    """Wake every process that waits on the 32-bit word at `address`."""
    if _number is not None:
        _syscall(
            ctypes.c_long(_number),
            ctypes.c_void_p(address),
            ctypes.c_int(_WAKE),
            ctypes.c_int(_EVERYONE),
            None,
            None,
            ctypes.c_int(0),
        )


class Fence:
    """A full memory barrier, made of what CPython offers: `fence()`.

    Releasing a lock and then taking one again is ordered on all our machines. x86: both are LOCK-prefixed, each a
    full barrier. aarch64: release is L, acquire is A, and the architecture orders every L before a later A (RCsc),
    so what stands before cannot pass what stands after. 32-bit ARM: both contain a DMB. Taking and releasing once
    would not do: acquire-then-release lets both sides drift into the middle.
    """

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __call__(self) -> None:
        lock = self._lock
        with lock:
            pass
        with lock:
            pass

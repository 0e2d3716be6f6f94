"""Every error the suite raises on purpose.

Foreign errors (OSError, sqlite3.Error, awsiot, onnxruntime, cv2) are translated once, where the library is
called, with `raise ... from error`.
"""

# EdgemlError
#  ├── ConfigError            configuration: path, what was found, what is allowed
#  ├── IpcError               the Greengrass core refused or did not answer
#  │    ├── RefusedError          answered, and never to be taken as it is: no outage, retrying is useless
#  │    │    └── UnauthorizedError    the recipe's accessControl does not allow the topic or operation
#  │    ├── NotFoundError         no such key, secret or component
#  │    └── DisconnectedError     the socket is gone; the process must exit and be restarted
#  ├── FrameError             a frame ring is unusable
#  │    └── RingNotFoundError     no writer has made the ring yet
#  ├── SourceError            a camera or file cannot be read
#  ├── BundleError            a model bundle is missing, incomplete, corrupt or does not run
#  │    └── UnreadableError       its folder may not be read by the user of this process
#  ├── SpoolError             the durable queue refuses or cannot store an item
#  │    └── Undeliverable         the receiver will never accept this item: drop it, do not retry
#  ├── HttpError              a server in the network (edgeml.http)
#  ├── JsonError              foreign JSON beyond its limits, a ValueError as well (edgeml.json_limits)
#  ├── SinkError              who is to take results does not answer, or not now: an outage
#  └── BackendError           a model's backend failed on one input


class EdgemlError(Exception):
    """Base of all errors of the suite; its text is fit for a log line and a user."""


class ConfigError(EdgemlError):
    """A configuration value is wrong. `path` is dotted, as a user would write it: `cameras.front.fps`."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"configuration {path}: {problem}" if path else f"configuration: {problem}")
        self.path = path


class IpcError(EdgemlError):
    """The Greengrass core refused an operation or did not answer in time."""


class RefusedError(IpcError):
    """The receiver answered that it will not take this as it is. Not an outage: let others pass."""


class UnauthorizedError(RefusedError):
    """The recipe's accessControl does not allow this operation on this resource."""


class NotFoundError(IpcError):
    """The core knows no such configuration key, secret or component."""


class DisconnectedError(IpcError):
    """The IPC socket is gone. It never comes back within a process: exit, and the core starts a new one."""


class FrameError(EdgemlError):
    """A frame ring cannot be used."""


class RingNotFoundError(FrameError):
    """There is no frame ring of that name yet."""


class SourceError(EdgemlError):
    """A video source cannot be opened or read."""


class BundleError(EdgemlError):
    """A model bundle is missing, incomplete, corrupt, or its model does not run."""


class UnreadableError(BundleError):
    """A model bundle, or the folder that it is in, may not be read by the user of this process."""


class SpoolError(EdgemlError):
    """The durable queue cannot take an item."""


class Undeliverable(SpoolError):  # noqa: N818  (names the verdict on the item, as a state)
    """The receiver will never accept this item; retrying is useless."""


class SinkError(EdgemlError):
    """A receiver of results does not answer, or not now: it is to be asked again."""


class BackendError(EdgemlError):
    """An inference backend failed on one input."""

"""Every error that edgeml raises for others to catch. What one component adds is in its own errors.py.

Foreign errors (OSError, sqlite3.Error, awsiot, onnxruntime, cv2) are translated once, where the library is
called, with `raise ... from error`.
"""

# EdgemlError
#  ├── ConfigError            configuration: path, what was found, what is allowed
#  ├── RefusedError           answered, and never to be taken as it is: no outage, retrying is useless
#  │    └── IpcRefusedError       (also an IpcError) so says the core
#  │         └── UnauthorizedError   the recipe's accessControl does not allow the topic or operation
#  ├── IpcError               the Greengrass core refused or did not answer
#  │    ├── NotFoundError         no such key, secret or component
#  │    └── DisconnectedError     the socket is gone; the process must exit and be restarted
#  ├── CloudError             an AWS service did not answer, or not now: an outage
#  │    └── CredentialsError      nobody gives credentials for it
#  ├── SecretError            a secret cannot be had
#  ├── FrameError             a frame ring is unusable
#  │    └── RingNotFoundError     no writer has made the ring yet
#  ├── SourceError            a camera or file cannot be read
#  ├── PictureError           a file is no picture that may be decoded
#  ├── BundleError            a model bundle is missing, incomplete, corrupt or does not run
#  │    ├── UnreadableError       its folder may not be read by the user of this process
#  │    └── ProviderError         the execution provider that is to run it is not there, or does not start
#  ├── SpoolError             the durable queue refuses or cannot store an item
#  │    └── Undeliverable         the receiver will never accept this item: drop it, do not retry
#  ├── HttpError              a server in the network does not answer as it should
#  │    ├── HttpTimeoutError      not in time
#  │    ├── HttpUrlError          this URL can never work
#  │    └── HttpRedirectError     it sends us somewhere that we do not go
#  ├── JsonError              foreign JSON beyond its limits; a ValueError as well
#  ├── StudioError            Edge Impulse Studio does not answer, or not as it should
#  ├── ChildError             a program cannot be started, or too often
#  ├── SinkError              who is to take results does not answer, or not now: an outage
#  └── BackendError           a model's backend failed on one input


class EdgemlError(Exception):
    """Base of all errors of the suite; its text is fit for a log line and a user.

    `code` is the problem that it is (edgeml.problems), empty where that depends on what was tried.
    """

    code = ""


class ConfigError(EdgemlError):
    """A configuration value is wrong. `path` is dotted, as a user would write it: `cameras.front.fps`."""

    code = "configuration_refused"

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"configuration {path}: {problem}" if path else f"configuration: {problem}")
        self.path = path


class RefusedError(EdgemlError):
    """The receiver answered that it will not take this as it is. Not an outage: let others pass."""

    code = "refused"


class IpcError(EdgemlError):
    """The Greengrass core refused an operation or did not answer in time."""


class IpcRefusedError(RefusedError, IpcError):
    """The core answered that it will never take this as it is."""


class UnauthorizedError(IpcRefusedError):
    """The recipe's accessControl does not allow this operation on this resource."""

    code = "unauthorized"


class NotFoundError(IpcError):
    """The core knows no such configuration key, secret or component."""


class DisconnectedError(IpcError):
    """The IPC socket is gone. It never comes back within a process: exit, and the core starts a new one."""


class CloudError(EdgemlError):
    """An AWS service did not do what it was asked this time: an outage."""

    code = "unreachable"


class CredentialsError(CloudError):
    """There are no AWS credentials now. An outage: what needs them waits."""

    code = "credentials"


class SecretError(EdgemlError):
    """There is no such secret or key in it, or nobody can be asked for it now."""

    code = "secret_missing"


class FrameError(EdgemlError):
    """A frame ring cannot be used."""


class RingNotFoundError(FrameError):
    """There is no frame ring of that name yet."""


class SourceError(EdgemlError):
    """A video source cannot be opened or read."""

    code = "source_failed"


class PictureError(EdgemlError):
    """A file cannot be read, or its bytes are no picture that may be decoded."""


class BundleError(EdgemlError):
    """A model bundle is missing, incomplete, corrupt, or its model does not run."""


class UnreadableError(BundleError):
    """A model bundle, or the folder that it is in, may not be read by the user of this process."""

    code = "unreadable"


class ProviderError(BundleError):
    """An execution provider of ONNX Runtime is not in its build, or does not start."""

    code = "provider_failed"


class SpoolError(EdgemlError):
    """The durable queue cannot take an item."""


class Undeliverable(SpoolError):  # noqa: N818  (names the verdict on the item, as a state)
    """The receiver will never accept this item; retrying is useless."""


class HttpError(EdgemlError):
    """The server cannot be reached, or does not answer as HTTP says, or not within the limits."""

    code = "unreachable"


class HttpTimeoutError(HttpError):
    """There was no more time."""


class HttpUrlError(HttpError):
    """This URL can never work: asking again is useless."""


class HttpRedirectError(HttpError):
    """The server sends us somewhere that we do not go."""


class JsonError(EdgemlError, ValueError):
    """This is no JSON that we take; the text says why."""


class StudioError(EdgemlError):
    """Edge Impulse Studio cannot be reached, or does not do what it was asked."""

    code = "unreachable"


class ChildError(EdgemlError):
    """A program cannot be started, or too often; the text names no argument, which may be secret."""

    code = "child_failed"


class SinkError(EdgemlError):
    """A receiver of results does not answer, or not now: it is to be asked again."""

    code = "unreachable"


class BackendError(EdgemlError):
    """An inference backend failed on one input."""

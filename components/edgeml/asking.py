"""What a component may ask of the core, and the answers of the SDK as ours: values, or errors of edgeml.errors."""

import concurrent.futures
from collections.abc import Callable
from typing import Any, Protocol

from edgeml._subscription import Subscription
from edgeml.errors import DisconnectedError, IpcError, IpcRefusedError, NotFoundError, SecretError, UnauthorizedError
from edgeml.inbox import Handler

TIMEOUT_S = 10.0
_LATE = (TimeoutError, concurrent.futures.TimeoutError)  # one and the same since Python 3.11


class Ipc(Protocol):
    """What a component may ask of the core. Handlers run one at a time, in order, on one thread."""

    max_iot_bytes: int

    def publish(self, topic: str, payload: bytes, *, wait: float = TIMEOUT_S) -> None:
        """Send to local subscribers without waiting for the answer; refusals are counted and logged.

        Only when the core is many answers behind is it given `wait` seconds to catch up. Raises IpcError after that.
        Once `close` has begun nothing is sent any more, without a word.
        """

    def publish_iot(self, topic: str, payload: bytes, *, qos: int = 1) -> None:
        """Send to AWS IoT Core and wait until the core has taken it. Raises IpcError, also once `close` has begun."""

    def subscribe(self, topic: str, handler: Handler) -> Subscription:
        """Hear a local topic until the answer is closed. Raises IpcError.

        The same topic and handler again renew the subscription they have.
        """

    def subscribe_iot(self, topic: str, handler: Handler, *, qos: int = 1) -> Subscription:
        """As `subscribe`, to a topic of AWS IoT Core."""

    def configuration(self, component: str = "") -> dict[str, Any]:
        """This component's configuration, or another one's. Raises IpcError; NotFoundError: there is no such one."""

    def on_configuration(self, changed: Callable[[], None]) -> None: ...

    def secret(self, secret_id: str) -> str: ...

    def dropped(self) -> int:
        """Messages received or sent that were lost because a queue was full or the core refused them."""

    def ready(self) -> None:
        """The component has made its first subscriptions: messages may come."""

    def close(self) -> None: ...


def translated(error: BaseException, what: str) -> IpcError:
    """An awsiot or awscrt error as one of ours, saying what was tried. Nucleus Lite sends no message text."""
    name = type(error).__name__
    text = f"{what}: {getattr(error, 'message', None) or str(error) or name}"
    if isinstance(error, IpcError):
        return error
    if name in ("UnauthorizedError", "AccessDeniedError"):
        return UnauthorizedError(f"{text} (accessControl of the recipe, or of the deployed configuration)")
    if name == "InvalidArgumentsError":
        return IpcRefusedError(text)
    if name in ("ResourceNotFoundError", "ComponentNotFoundError"):
        return NotFoundError(text)
    if name in ("ConnectionClosedError", "StreamClosedError"):
        return DisconnectedError(text)
    return IpcError(f"{what}: no answer in {TIMEOUT_S:g} s" if isinstance(error, _LATE) else f"{text} ({name})")


def secret_text(secret_id: str, string: str | None, binary: bytes | None) -> str:
    """The text of a secret, however it was given. Raises SecretError for an answer that holds none."""
    try:
        text = string or (binary.decode() if isinstance(binary, bytes | bytearray) else "")
    except ValueError as error:
        raise SecretError(f"secret {secret_id}: expected text, found bytes that are none") from error
    if not text:
        raise SecretError(f"secret {secret_id}: the answer is empty, it has neither a string nor bytes")
    return str(text)

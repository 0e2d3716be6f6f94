"""Calls with one answer on Nucleus Lite, which never ends their streams: used by edgeml.ipc.GreengrassIpc.

The SDK keeps what belongs to a stream until either side ends it. Without an end from us that is 6 kB for each message
sent, for as long as the process lives. Lite takes the end of a stream that is over already without a word.
"""

from typing import Any

UNARY = {"new_publish_to_topic", "new_publish_to_iot_core", "new_get_configuration", "new_get_secret_value"}


class EndsAnswered:
    """The SDK's client as it is, but for the streams of calls with one answer: they are ended after it."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        made = getattr(self._client, name)
        if name not in UNARY:
            return made

        def new() -> Any:
            operation = made()
            operation.get_response().add_done_callback(lambda answer: operation.close())
            return operation

        return new

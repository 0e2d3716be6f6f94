"""Connections to a local MQTT broker, as sources and sinks make them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from edgeml.errors import SourceError
from edgeml.secrets import secret_value

if TYPE_CHECKING:
    import paho.mqtt.client as mqtt

    from edgeml.component import Context

CONNECT_TIMEOUT_S = 5.0


class Access(Protocol):
    """How a broker is reached, as it is configured."""

    @property
    def host(self) -> str: ...

    @property
    def port(self) -> int: ...

    @property
    def tls(self) -> bool: ...

    @property
    def ca_file(self) -> str: ...

    @property
    def user(self) -> str: ...

    @property
    def password_secret(self) -> str: ...


def client_of(settings: Access, context: Context) -> mqtt.Client:
    """A client, not connected yet. Raises SecretError for the password, SourceError for what paho does not take."""
    import paho.mqtt.client as mqtt
    from paho.mqtt.enums import CallbackAPIVersion

    try:
        client = mqtt.Client(CallbackAPIVersion.VERSION2)
        client.connect_timeout = CONNECT_TIMEOUT_S
        if settings.tls:
            client.tls_set(ca_certs=settings.ca_file or None)
    except (OSError, ValueError) as error:
        raise SourceError(f"CA certificates {settings.ca_file}: {error}") from error
    password = None
    if settings.user and settings.password_secret:
        password = secret_value(context.ipc, settings.password_secret, "password")
    try:
        if settings.user:
            client.username_pw_set(settings.user, password)
    except (OSError, ValueError) as error:
        raise SourceError(f"broker {settings.host}:{settings.port}: {error}") from error
    return client

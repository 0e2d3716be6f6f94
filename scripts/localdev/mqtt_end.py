"""The end of an MQTT client."""

from contextlib import suppress

import paho.mqtt.client as mqtt


def let_go(client: mqtt.Client) -> None:
    """Disconnect, end its thread, and let it go: with handlers that know the client, the two sockets by which it wakes
    itself would stay open until the garbage collector comes by.
    """
    client.disconnect()
    with suppress(AttributeError):  # the thread forgets itself when it ends, which may be while paho looks at it
        client.loop_stop()
    client.on_message = client.on_connect = client.on_subscribe = client.on_publish = client.on_disconnect = None

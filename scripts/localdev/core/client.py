"""The connection of scripts/core to a running core: the real IPC client, as principal aws.greengrass.Cli."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CONNECT_SECONDS = 5.0
CORE = "localdev.core"
"""The name under which scripts/core asks about its core, by GetConfiguration."""


class CliError(Exception):
    """A command failed; the text is for the user."""


def publish_credentials(root: Path, socket: Path, token: str, pid: int | None = None) -> None:
    """Writes what the CLI needs to connect, readable by the core's user only; with `pid`, whom `stop` ends."""
    folder = root / "cli_ipc_info"
    folder.mkdir(mode=0o700, exist_ok=True)
    path = _credentials(root)
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump({"cli_auth_token": token, "domain_socket_path": str(socket), "pid": pid}, file)


def published(root: Path) -> dict[str, Any]:
    """What `publish_credentials` wrote. CliError if no core runs."""
    try:
        info = json.loads(_credentials(root).read_text())
    except (OSError, ValueError) as error:
        raise CliError(f"no core runs in {root} (scripts/core start): {error}") from error
    return dict(info)


def withdraw_credentials(root: Path) -> None:
    """Removes what `publish_credentials` wrote, if anything."""
    _credentials(root).unlink(missing_ok=True)


def _credentials(root: Path) -> Path:
    return root / "cli_ipc_info" / f"user-{os.getuid()}"


@contextlib.contextmanager
def connect(root: Path) -> Iterator[Any]:
    """A GreengrassCoreIPCClientV2 for the core in `root`. CliError if none runs or if it answers with an error."""
    from awscrt.exceptions import AwsCrtError
    from awsiot import greengrasscoreipc
    from awsiot.greengrasscoreipc.clientv2 import GreengrassCoreIPCClientV2

    info = published(root)
    try:
        ipc = greengrasscoreipc.connect(
            ipc_socket=info["domain_socket_path"], authtoken=info["cli_auth_token"], timeout=CONNECT_SECONDS
        )
    except (OSError, RuntimeError) as error:
        raise CliError(f"no core runs in {root} (scripts/core start): {error}") from error
    client = GreengrassCoreIPCClientV2(client=ipc, executor=None)
    try:
        yield client
    except RuntimeError as error:  # the base of all its errors
        raise CliError(f"{type(error).__name__}: {getattr(error, 'message', None) or error}") from error
    finally:
        with contextlib.suppress(AwsCrtError):  # a core that ends may have closed it before
            client.close().result(CONNECT_SECONDS)


def describe(client: Any) -> dict[str, Any]:
    """What a core says of itself to its own command line alone."""
    described: dict[str, Any] = client.get_configuration(component_name=CORE, key_path=[]).value
    return described

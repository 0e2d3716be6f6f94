"""What keeps the page from being served."""

from edgeml.errors import EdgemlError


class AccessError(EdgemlError):
    """What guards the page (password, certificate, key) cannot be made or read, or is not to be trusted."""


class ServerError(EdgemlError):
    """The address cannot be listened on."""

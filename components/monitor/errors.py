"""What keeps the page, or a picture on it, from being served."""

from edgeml.errors import EdgemlError


class AccessError(EdgemlError):
    """What guards the page (password, certificate, key) cannot be made or read, or is not to be trusted."""

    code = "file_refused"


class ServerError(EdgemlError):
    """The address cannot be listened on."""

    code = "address_in_use"


class EncodeError(EdgemlError):
    """A frame that OpenCV cannot make a JPEG of."""

"""What only cameras raise."""

from edgeml.errors import SourceError


class UndecodableError(SourceError):
    """This frame is lost; the next one may be whole."""

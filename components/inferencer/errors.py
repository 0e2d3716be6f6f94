"""What only backends and sources of the Inferencer raise."""

from edgeml.errors import BackendError


class BusyError(BackendError):
    """A server did not answer this time; the next attempt may pass."""

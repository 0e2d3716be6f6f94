"""What can go wrong with an update."""

from edgeml.errors import EdgemlError


class UpdateError(EdgemlError):
    """This job cannot succeed on this device; the text is the reason that the cloud is told."""


class Stopped(Exception):  # noqa: N818  (not an error: the component was told to stop in the middle of a job)
    """The work was left where it is and goes on after the next start."""

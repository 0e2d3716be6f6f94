"""What can go wrong with an update, and with the service that asks for it."""

# EdgemlError
#  ├── UpdateError            the job cannot succeed
#  └── CloudError
#       └── JobsError             AWS IoT Jobs does not answer, or not as it should
#            ├── JobGone              it expects nothing of this job any more
#            └── InvalidRequest       it will never take the request

from edgeml.errors import CloudError, EdgemlError


class UpdateError(EdgemlError):
    """This job cannot succeed on this device; the text is the reason that the cloud is told."""


class JobsError(CloudError):
    """AWS IoT Jobs did not answer, or not as it should."""


class JobGone(JobsError):  # noqa: N818  (names what happened to the job, as a state)
    """The cloud does not expect anything of this execution any more."""


class InvalidRequest(JobsError):  # noqa: N818  (the API's own word)
    """The cloud will never take this request as it is."""


class Stopped(Exception):  # noqa: N818  (not an error: the component was told to stop in the middle of a job)
    """The work was left where it is and goes on after the next start."""

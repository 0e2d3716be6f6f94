"""What an .eim model and its process do wrong."""

# BackendError
#  └── EimError               any of these
#       ├── EimRefused            a no to one question
#       └── EimGone               a model that is to be replaced

from edgeml.errors import BackendError


class EimError(BackendError):
    """An .eim model did not do what was asked."""

    code = "child_failed"


class EimRefused(EimError):  # noqa: N818  (names the verdict)
    """The model answered that it cannot; it goes on running."""


class EimGone(EimError):  # noqa: N818
    """The model died, hangs or speaks nonsense; only a new one can help."""

"""What scripts/deploy does: publish component versions, merge them into a thing group's deployment, watch it arrive."""


class DeployError(Exception):
    """Nothing was deployed, or not everywhere; the text says why and what to do."""

    code = 1


class UsageError(DeployError):
    """What was asked for, or what is configured, cannot be: it has to change before another try."""

    code = 2

"""What scripts/deploy does: publish component versions, merge them into a thing group's deployment, watch it arrive."""


class DeployError(Exception):
    """Nothing was deployed, or not everywhere; the text says why and what to do."""

"""When to do something that happens too often to do it each time."""


class Throttle:
    """Whether to log the nth case of one kind: the 1st, 2nd, 4th, 8th ... A flood must not flood the log as well."""

    def __init__(self) -> None:
        self.count = 0

    def due(self) -> bool:
        """Count one more case; whether it is one to speak of."""
        self.count += 1
        return self.count & (self.count - 1) == 0

    def reset(self) -> None:
        self.count = 0

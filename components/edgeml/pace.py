"""When to do something that happens too often to do it each time."""


def worth_telling(count: int) -> bool:
    """Whether the nth case of one kind is to be logged: the 1st, 2nd, 4th, 8th ..."""
    return count & (count - 1) == 0


class Throttle:
    """Counts the cases of one kind, of which few are logged: a flood must not flood the log as well."""

    def __init__(self) -> None:
        self.count = 0

    def due(self) -> bool:
        """Count one more case; whether it is one to speak of."""
        self.count += 1
        return worth_telling(self.count)

    def reset(self) -> None:
        self.count = 0

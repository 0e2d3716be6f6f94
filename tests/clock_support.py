"""A clock for tests: it starts and jumps as it is told."""

from edgeml.clock import Clock


class FakeClock(Clock):
    """`wall` and `uptime` in seconds, `synchronised` and `boot` as they are set; `pass_s` lets time go by in both."""

    def __init__(
        self, wall: float = 5.0, *, uptime: float = 5.0, synchronised: bool = False, boot: str = "boot-1"
    ) -> None:
        self.wall, self.uptime, self.synchronised, self.boot = wall, uptime, synchronised, boot
        super().__init__(
            wall=lambda: self.wall,
            uptime=lambda: self.uptime,
            boot=lambda: self.boot,
            vouched=lambda: self.synchronised,
        )

    def pass_s(self, seconds: float) -> None:
        self.wall += seconds
        self.uptime += seconds

    def synchronise(self, wall: float) -> None:
        """A time server answers: the wall clock jumps to `wall`."""
        self.wall, self.synchronised = wall, True

"""Whether a soak's processes have grown."""

from collections.abc import Callable

from soak_support import (
    MEBIBYTE,
    PROCESSES,
    Sample,
    growth,
    within_lives,
)

# Bounds of growth: of the medians of windows, in bytes over the first window's median, and in descriptors.
GROWTH, GROWTH_BYTES, GROWTH_DESCRIPTORS = 0.08, 4 * MEBIBYTE, 2


MATURE_S = 20.0  # of a process: younger ones still warm up


def flatness(taken: dict[str, list[Sample]], seconds: float) -> list[str]:
    """What has grown beyond its bounds; prints all figures.

    The core: from the second sixth of the soak to its last. A component, whose processes are ended about every
    80 s: from one process to those that come later, at the same age, and within the lives of its processes.
    """

    def window(first: float, last: float, youngest: float = 0.0) -> Callable[[Sample], bool]:
        return lambda sample: first <= sample.at <= last and sample.age >= youngest

    def aged(first: float, last: float) -> Callable[[Sample], bool]:
        return lambda sample: first <= sample.age <= last

    def mature(first: float, last: float) -> Callable[[Sample], bool]:
        return lambda sample: first <= sample.at <= last and MATURE_S <= sample.age <= 3 * MATURE_S

    found = []
    for name, samples in sorted(taken.items()):
        if name == "core":
            windows = {"over the soak": growth(samples, window(seconds / 6, seconds / 3), window(seconds * 5 / 6, 1e9))}
        elif name in PROCESSES.values():
            windows = {
                "over the soak": growth(samples, mature(seconds / 6, seconds / 2), mature(seconds * 2 / 3, 1e9)),
                "within a life": within_lives(samples, aged(MATURE_S, 2 * MATURE_S), aged(3 * MATURE_S, 1e9)),
            }
        else:
            continue
        for what, grown in windows.items():
            if grown is None:
                print(f"  {name:28} {what}: too short to be judged")
                continue
            base, rss, descriptors = grown
            text = f"{name:28} {what}: {base / MEBIBYTE:6.1f} MiB {rss / MEBIBYTE:+.1f}, descriptors {descriptors:+.0f}"
            print(f"  {text}")
            if rss > max(GROWTH_BYTES, base * GROWTH) or descriptors > GROWTH_DESCRIPTORS:
                found.append(text)
    return found

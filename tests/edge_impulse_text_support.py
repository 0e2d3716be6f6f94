"""What Edge Impulse firmware prints, and what is read of it."""

import itertools

from serial_scraper.edge_impulse import Block, EdgeImpulseParser
from serial_scraper.lines import LineSplitter, text

# Said between results, and never a part of one.
NOISE = [
    "Starting inferencing in 2 seconds...",
    "Taking photo...",
    "Recording...\r\nRecording done",
    "Inferencing settings:\n\tInterval: 16.000000ms.\n\tFrame size: 9216\n\tNo. of classes: 2",
    "\tNo. of classes: 2\nClasses:\n\tyes\n\tno",
    "I (164) esp_image: segment 0: paddr=00010020",
    "ets Jul 29 2019 12:21:46",
    "Begin output\nFramebuffer: /9j/4AAQSkZJRgABAQ==",
    "End output",
    "----------------------------------",
    "ERR: Failed to get frame",
    "Failed to run impulse (-3)",
    "> AT+RUNIMPULSE\r",
    "\x1b[2K\r> \x1b[s\x1b[u",
    "Predictions (time: 12 ms.):\nidle:\t0.99\nwave:\t0.01",
    "Features (0.1, 0.2): 3",
    "Time resizing: 12",
    "temperature=21.5 \ufffd\u2603",
]


def parsed(chunks: list[bytes]) -> tuple[list[Block], list[str]]:
    unknown: list[str] = []
    splitter, parser = LineSplitter(16_384), EdgeImpulseParser(unknown.append)
    found = [block for chunk in chunks for block in parser.feed([text(line)[0] for line in splitter.feed(chunk)])]
    return found + parser.flush(), unknown


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]

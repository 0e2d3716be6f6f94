"""What an ONNX file says of itself, read without the onnx package: where its weights lie, and what its outputs are.

Only the few fields that are needed are walked, by number, as https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
has them; the encoding is https://protobuf.dev/programming-guides/encoding/.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

MAX_FIELDS = 5_000_000  # a model of a thousand layers has some 30,000
MAX_CHAIN = 32  # nodes that only reshape, between an output and what computes it

_Fields = dict[int, "str"]
# Which fields of a message hold which other message; a name that is no key here holds none.
_INSIDE: dict[str, _Fields] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "external"},
}
# What keeps the meaning of each number; a quantized model ends in a pair of the last two.
_RESHAPES = frozenset({"Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Cast", "Transpose", "Dropout"})
_RESHAPES |= {"QuantizeLinear", "DequantizeLinear"}


class NotOnnxError(ValueError):
    """The bytes are no ONNX model."""


@dataclass(frozen=True)
class Graph:
    """`external` are the files that hold weights; `ends` is, by output, the operator that computes it."""

    external: frozenset[str] = frozenset()
    ends: dict[str, str] = field(default_factory=dict)


def read(data: bytes) -> Graph:
    """Raises NotOnnxError. Time and memory are linear in the number of layers and weights, not in their size."""
    walk = _Walk(data)
    external: set[str] = set()
    ends: dict[str, str] = {}
    waiting = [("model", 0, len(data))]
    while waiting:
        kind, start, end = waiting.pop()
        if kind == "external":
            external |= walk.locations(start, end)
            continue
        inside = _INSIDE[kind]
        for number, begin, stop in walk.fields(start, end):
            if (child := inside.get(number)) is not None:
                waiting.append((child, begin, stop))
                if kind == "model" and child == "graph":
                    ends |= walk.ends(begin, stop)
    return Graph(frozenset(external), ends)


class _Walk:
    def __init__(self, data: bytes) -> None:
        self._data, self._count = data, 0

    def fields(self, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Number, start and end of each field of a message that has a length."""
        while start < end:
            self._count += 1
            if self._count > MAX_FIELDS:
                raise NotOnnxError(f"more than {MAX_FIELDS} fields")
            tag, start = self._varint(start, end)
            kind = tag & 7
            if kind == 2:
                length, start = self._varint(start, end)
                if length > end - start:
                    raise NotOnnxError(f"a field of {length} bytes where {end - start} are left")
                yield (tag & 0xFFFFFFFF) >> 3, start, start + length
                start += length
            elif kind == 0:
                _, start = self._varint(start, end)
            elif kind in (1, 5):
                start += 8 if kind == 1 else 4
            elif kind not in (3, 4):  # the marks of a group, whose fields follow
                raise NotOnnxError(f"no field has the wire type {kind}")
        if start > end:
            raise NotOnnxError("a field ends beyond its message")

    def _varint(self, start: int, end: int) -> tuple[int, int]:
        value = shift = 0
        while start < end and shift < 70:
            byte = self._data[start]
            start += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, start
            shift += 7
        raise NotOnnxError("a number has no end")

    def _text(self, start: int, end: int) -> str:
        return self._data[start:end].decode("utf-8", "replace")

    def locations(self, start: int, end: int) -> set[str]:
        """The values of an external_data entry whose key is `location`."""
        found = [(number, self._text(begin, stop)) for number, begin, stop in self.fields(start, end)]
        if (1, "location") not in found:
            return set()
        return {text for number, text in found if number == 2} or {""}

    def ends(self, start: int, end: int) -> dict[str, str]:
        """By output of a graph, the operator that computes it, past those that only reshape."""
        makers: dict[str, tuple[str, str]] = {}  # by value: operator and first input
        outputs = []
        for number, begin, stop in self.fields(start, end):
            if number == 1:
                inputs, made, operator = self._node(begin, stop)
                makers |= dict.fromkeys(made, (operator, inputs[0] if inputs else ""))
            elif number == 12:
                outputs += [self._text(*place) for field, *place in self.fields(begin, stop) if field == 1]
        return {output: self._end(makers, output) for output in outputs}

    @staticmethod
    def _end(makers: dict[str, tuple[str, str]], value: str) -> str:
        for _ in range(MAX_CHAIN):
            operator, value = makers.get(value, ("", ""))
            if operator not in _RESHAPES:
                return operator
        return ""

    def _node(self, start: int, end: int) -> tuple[list[str], list[str], str]:
        inputs, outputs, operator = [], [], ""
        for number, begin, stop in self.fields(start, end):
            if number == 1:
                inputs.append(self._text(begin, stop))
            elif number == 2:
                outputs.append(self._text(begin, stop))
            elif number == 4:
                operator = self._text(begin, stop)
        return inputs, outputs, operator

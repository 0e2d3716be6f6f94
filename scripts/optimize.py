"""Makes variants of a bundle, INT8 for processors of a kind and fp16 for accelerators, and keeps what answers as fp32.

INT8: calibrates by three methods, with one scale a tensor and one a channel, and keeps the best; leaves nodes in float
where accuracy asks for it. A variant gets into the bundle only if it ran on a processor of its kind: on this one, or by
`--run ISA=COMMAND`, which starts a Python with NumPy and ONNX Runtime there, under an emulator for example. fp16: each
number is rounded as on an accelerator, and computed by the CPU's kernels; whether it is faster there, devices find out.
"""

import argparse
import contextlib
import dataclasses
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from agreement import Answers, answers, compared, loss
from bundles import calibrate, half, quantize
from bundles.elsewhere import Elsewhere, ElsewhereError
from bundles.quantize import Plan
from bundles.trials import KEPT, LOST, SLOW, Row, cells, chosen, plotted, table
from edgeml import models
from edgeml.bundle import MODEL, Bundle
from edgeml.errors import EdgemlError
from edgeml.variants import this_processor
from inferencer.preprocess import Preprocessor
from variant_files import Made, for_accelerators, for_processor, with_variants

PICTURES = {".png", ".jpg", ".jpeg", ".bmp"}
MOST = 500  # samples of a folder
ROUNDS = 10  # of measuring
FASTER = 1.05  # than fp32, to be kept unless said
CALIBRATED = 40  # of them at most
FLOATS = (1, 2, 4, 8, 12, 16)  # nodes with weights that are left in float


class NotPossibleError(Exception):
    """What was expected of the arguments, and what is there."""


def main(given: Sequence[str] | None = None) -> int:
    options = arguments(given)
    try:
        bundle = models.load(options.bundle)
        evaluation = samples(bundle, options.evaluate)
        expected = answers(bundle, models.open_session(bundle, threads=1), evaluation)
        if bundle.manifest.task == "detection" and not any(expected):
            raise NotPossibleError(f"{options.evaluate}: fp32 finds nothing there, as any broken variant would")
        rows: list[Row] = []
        made: list[Made] = []
        plan = None
        try:
            if options.calibration:
                plan, found = optimized(bundle, evaluation, expected, options, rows)
                made += found
        except NotPossibleError as error:
            if not options.fp16:
                raise
            print(f"optimize: no INT8: {error}", file=sys.stderr)
        if options.fp16:
            made += halved(bundle, evaluation, expected, options, rows)
        print(table(rows))
        if options.plot:
            plotted(rows, options.plot)
        if not made:
            raise NotPossibleError("no variant is faster and within --max-loss: the bundle stays as it is")
        if options.plan and plan and plan.isas:
            options.plan.write_text(json.dumps(dataclasses.asdict(plan)) + "\n", encoding="utf-8")
        written = with_variants(bundle, made, options.output or bundle.path)
        print(f"{written.path}: {', '.join(variant.name for variant in written.manifest.variants)}", file=sys.stderr)
    except (EdgemlError, NotPossibleError, ElsewhereError, OSError) as error:
        print(f"optimize: {error}", file=sys.stderr)
        return 1
    return 0


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="optimize", description=__doc__)
    parser.add_argument("bundle", type=Path, help="folder of the bundle")
    parser.add_argument("--calibration", type=Path, metavar="FOLDER", help="for INT8: pictures or .npy of samples")
    parser.add_argument("--fp16", action="store_true", help="for accelerators")
    parser.add_argument("--evaluate", type=Path, required=True, metavar="FOLDER", help="others, of the same kind")
    parser.add_argument("--max-loss", type=float, default=0.01, help="of agreement with fp32 (default 0.01)")
    parser.add_argument("--min-gain", type=float, default=FASTER, help=f"over fp32's speed (default {FASTER})")
    parser.add_argument("--method", action="append", choices=calibrate.METHODS, help="of calibration (default all)")
    parser.add_argument("--output", type=Path, help="folder of the bundle with variants (default: the same)")
    parser.add_argument(
        "--run", action="append", default=[], metavar="ISA=COMMAND", help="a Python on such a processor"
    )
    parser.add_argument("--plan", type=Path, help="write what was found, from which a build makes the variants again")
    parser.add_argument("--plot", type=Path, help="write a picture of the table, where matplotlib is there")
    options = parser.parse_args(given)
    if not (options.calibration or options.fp16):
        parser.error("expected --calibration, --fp16 or both")
    if options.plan and not options.calibration:
        parser.error("--plan is for INT8, and needs --calibration")
    options.run = dict(each.partition("=")[::2] for each in options.run)
    if unknown := options.run.keys() - set(quantize.ISAS):
        parser.error(f"--run {unknown.pop()}: expected one of {', '.join(quantize.ISAS)}")
    return options


def optimized(
    bundle: Bundle, evaluation: Sequence[Any], expected: Answers, options: argparse.Namespace, rows: list[Row]
) -> tuple[Plan, list[Made]]:
    """INT8: the plan of what is kept, and that. What was tried goes to `rows`. Raises NotPossibleError."""
    here = this_processor().isas[:1]
    if not here:
        raise NotPossibleError(f"no variants are known for this processor ({this_processor().machine})")
    model = bundle.read(MODEL)
    prepared = quantize.prepare(model)
    if not any(node.op_type in quantize.HEAVY for node in prepared.graph.node):
        raise NotPossibleError("the model has no convolution and no matrix product: there is nothing to quantize")
    name = bundle.manifest.input.name
    feeds = [{name: tensor(bundle, sample)} for sample in samples(bundle, options.calibration)]

    def tried(plan: Plan, isa: str) -> tuple[Row, Plan]:
        plan, command = dataclasses.replace(plan, isas=(isa,)), "" if isa in here else options.run[isa]
        row = judged(bundle, plan, evaluation, expected, options, command)
        said(row, rows)
        return row, plan

    def best_of(tries: Sequence[tuple[Row, Plan]]) -> tuple[Row, Plan]:
        best = chosen(tries)
        if best[0].verdict == LOST and fast(best[0], options.min_gain):
            order = sensitive(bundle, prepared, best[1], feeds[:: 1 + len(feeds) // 4])
            best = with_floats(best, order, options.min_gain, tried)
        return best

    first = []
    for method in options.method or calibrate.METHODS:
        ranges = calibrate.ranges(prepared, method, feeds[:: 1 + len(feeds) // CALIBRATED])
        first += [tried(Plan(method, per_channel, {}, (), ranges), here[0]) for per_channel in (True, False)]
    row, plan = best_of(first)
    kept: dict[str, tuple[Row, Plan]] = {here[0]: (row, plan)} if row.verdict == KEPT else {}
    for isa in options.run if kept else ():
        alike = dataclasses.replace(plan, excluded={isa: plan.excluded.get(here[0], ())})
        if isa not in here and (other := best_of([tried(alike, isa)]))[0].verdict == KEPT:
            kept[isa] = other
    excluded = {isa: found.excluded[isa] for isa, (_, found) in kept.items() if found.excluded.get(isa)}
    plan = dataclasses.replace(plan, isas=tuple(kept), excluded=excluded)
    contents = quantize.variants(model, plan)
    made = [for_processor(isa, contents[quantize.file_name(isa)], row.accuracy) for isa, (row, _) in kept.items()]
    return plan, made


def halved(
    bundle: Bundle, evaluation: Sequence[Any], expected: Answers, options: argparse.Namespace, rows: list[Row]
) -> list[Made]:
    """fp16, if that is possible and accurate."""
    try:
        content = half.halved(bundle.read(MODEL))
        with beside(bundle, for_accelerators(content, {})) as variant:
            models.probe(models.open_session(variant, threads=1), variant)
        with beside(bundle, for_accelerators(half.spelled_out(content), {})) as variant:
            found = answers(variant, models.open_session(variant, threads=1), evaluation)
    except (EdgemlError, half.NotConvertedError) as error:
        print(f"optimize: no fp16: {error}", file=sys.stderr)
        return []
    accuracy = compared(bundle.manifest.task, found, expected)
    lost = loss(accuracy)
    said(Row("any", "fp16", "-", 0, accuracy, lost, None, LOST if lost > options.max_loss else KEPT), rows)
    return [for_accelerators(content, accuracy)] if lost <= options.max_loss else []


def said(row: Row, rows: list[Row]) -> None:
    print("  ".join(cells(row)), file=sys.stderr, flush=True)
    rows.append(row)


def with_floats(
    best: tuple[Row, Plan],
    order: Sequence[tuple[str, ...]],
    min_gain: float,
    tried: Callable[[Plan, str], tuple[Row, Plan]],
) -> tuple[Row, Plan]:
    """The same with the most sensitive nodes in float, as few as keep the loss small, while it is faster."""
    isa, plan = best[0].isa, best[1]
    for count in FLOATS:
        excluded = tuple(name for unit in order[:count] for name in unit)
        best = tried(dataclasses.replace(plan, excluded={isa: excluded}), isa)
        if best[0].verdict != LOST or count >= len(order) or not fast(best[0], min_gain):
            break
    return best


def fast(row: Row, min_gain: float) -> bool:
    """Or not known to be slow: elsewhere nothing is timed."""
    return row.gain is None or row.gain >= min_gain


def sensitive(bundle: Bundle, prepared: Any, plan: Plan, feeds: Sequence[Any]) -> list[tuple[str, ...]]:
    """Nodes with weights, each with the activation behind it; first those whose rounding alone moves outputs most."""
    plain = models.open_session(bundle, threads=1)
    expected = [plain.run(None, feed) for feed in feeds]
    found = []
    for unit in quantize.units(prepared):
        others = tuple(node.name for node in prepared.graph.node if node.name not in unit)
        with opened(bundle, dataclasses.replace(plan, excluded=dict.fromkeys(plan.isas, others))) as (_, _, session):
            answers = [session.run(None, feed) for feed in feeds]
        found.append((sum(map(distance, answers, expected)), unit))
    return [unit for _, unit in sorted(found, reverse=True)]


def distance(found: Sequence[Any], expected: Sequence[Any]) -> float:
    """How far outputs are off, each by its own size."""
    off = [np.sqrt(np.square(one - other).mean()) for one, other in zip(found, expected, strict=True)]
    return float(sum(one / (np.sqrt(np.square(other).mean()) + 1e-9) for one, other in zip(off, expected, strict=True)))


@contextlib.contextmanager
def opened(bundle: Bundle, plan: Plan) -> Iterator[tuple[bytes, Bundle, Any]]:
    """The variant of a plan that names one processor: the file, a bundle that runs it, a session."""
    ((_, content),) = quantize.variants(bundle.read(MODEL), plan).items()
    (isa,) = plan.isas
    with beside(bundle, for_processor(isa, content, {})) as made:
        yield content, made, models.open_session(made, threads=1)


@contextlib.contextmanager
def beside(bundle: Bundle, variant: Made) -> Iterator[Bundle]:
    """A bundle that runs it."""
    with tempfile.TemporaryDirectory() as folder:
        yield with_variants(bundle, [variant], Path(folder) / "bundle").using(variant.file)


def judged(
    bundle: Bundle,
    plan: Plan,
    evaluation: Sequence[Any],
    expected: Answers,
    options: argparse.Namespace,
    command: str = "",
) -> Row:
    """One variant, beside fp32."""
    gain = None
    with opened(bundle, plan) as (content, variant, session):
        if command:
            with Elsewhere(command, content, session) as there:
                found = answers(variant, there, evaluation)
        else:
            found = answers(variant, session, evaluation)
            plain = models.open_session(bundle, threads=1)
            gain = faster(plain, session, {bundle.manifest.input.name: tensor(bundle, evaluation[0])})
    accuracy = compared(bundle.manifest.task, found, expected)
    lost = loss(accuracy)
    slow = gain is not None and gain < options.min_gain
    verdict = LOST if lost > options.max_loss else SLOW if slow else KEPT
    scales, (isa,) = "channel" if plan.per_channel else "tensor", plan.isas
    return Row(isa, plan.method, scales, len(plan.excluded.get(isa, ())), accuracy, lost, gain, verdict)


def faster(plain: Any, variant: Any, feed: dict[str, Any]) -> float:
    """How many times as fast as `plain` one run of `variant` is; the best of several, in turns."""
    best = [np.inf, np.inf]
    for _ in range(ROUNDS):
        for place, session in enumerate((plain, variant)):
            best[place] = min(best[place], timed(lambda session=session: session.run(None, feed)))  # type: ignore[misc]
    return float(best[0] / best[1])


def timed(work: Callable[[], object]) -> float:
    began = cv2.getTickCount()
    work()
    return (cv2.getTickCount() - began) / cv2.getTickFrequency()


def samples(bundle: Bundle, folder: Path) -> list[Any]:
    """Pictures (height, width, 3) BGR of uint8, or vectors; an array (.npy) holds several. Raises NotPossibleError."""
    found: list[Any] = []
    declared = bundle.manifest.input
    vectors = declared.layout == "tensor"
    for path in sorted(folder.glob("*.npy")):
        try:
            array = np.load(path, allow_pickle=False)
            found += list(array.reshape(-1, *(declared.shape if vectors else array.shape[-3:])))
        except ValueError as error:
            raise NotPossibleError(f"{path}: {error}") from error
    if not vectors:
        paths = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in PICTURES]
        pictures = [cv2.imread(str(path), cv2.IMREAD_COLOR) for path in paths[:MOST]]
        found += [np.asarray(picture) for picture in pictures if picture is not None]
        if any(one.dtype != np.uint8 or one.shape[2:] != (3,) for one in found):
            raise NotPossibleError(f"{folder}: expected pictures [n, height, width, 3] of uint8 in .npy")
    if not found:
        raise NotPossibleError(f"{folder}: no {'arrays (.npy)' if vectors else 'pictures'} in it")
    return found[:MOST]


def tensor(bundle: Bundle, sample: Any) -> Any:
    """A sample as the model takes it."""
    declared = bundle.manifest.input
    if declared.layout == "tensor":
        return np.asarray(sample, declared.dtype)[np.newaxis]
    return Preprocessor(declared)(sample)[0]


if __name__ == "__main__":
    raise SystemExit(main())

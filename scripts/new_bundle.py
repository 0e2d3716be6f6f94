"""Writes a model bundle around an ONNX file, and checks it as a device does.

Inputs, outputs, labels and hashes are read from the file; preparation and decoder are proposed with reasons, and tried:
a decoder that does not fit the outputs is not proposed. With a picture, the model answers it, and the answer is drawn.
"""

import argparse
import ast
import json
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edgeml import models
from edgeml.errors import EdgemlError
from edgeml.messages import SampleRef, encode
from edgeml.onnx_session import first_line, runtime
from inferencer.backends.onnx import OnnxBackend
from inferencer.config import Pipeline
from inferencer.sample import Sample
from inferencer.sources.camera import CameraSource
from inferencer.tasks import DECODERS, runner_of
from inferencer.tasks.runner import Runner

DTYPES = {"tensor(float)": "float32", "tensor(double)": "float64"}
# Which decoders are tried for which task, the likeliest first; a turbine's needs its own training.
TRIED = {
    "detection": ("centerface", "blazeface", "yolo_segment", "yolo_pose", "yolo", "detr", "ssd", "detections"),
    "classification": ("softmax",),
    "regression": ("regression",),
}
ULTRALYTICS = {"detect": "detection", "segment": "detection", "pose": "detection", "classify": "classification"}
GREEN = (0, 200, 0)


class NotPossibleError(Exception):
    """What was expected of the file or the arguments, and what is there."""


@dataclass
class Proposal:
    """model.json as far as it is known, and why each part is as it is."""

    manifest: dict[str, Any]
    reasons: list[str] = field(default_factory=list)


def main(given: Sequence[str] | None = None) -> int:
    options = arguments(given)
    try:
        folder = Path(options.output or _name(options))
        if folder.exists():
            raise NotPossibleError(f"{folder} is there already: name another one with --output")
        if options.picture and cv2.imread(str(options.picture)) is None:
            raise NotPossibleError(f"{options.picture}: not a readable image")
        proposal = proposed(options)
        runner = written(options, proposal, folder)
        print(*(f"- {reason}" for reason in proposal.reasons), sep="\n")
        print(f"{folder}: model.onnx, model.json; it loads and answers")
        if options.picture:
            print(
                *shown(runner, options.picture, folder.parent / f"{folder.name}-{options.picture.stem}.jpg"), sep="\n"
            )
    except (EdgemlError, NotPossibleError, OSError) as error:
        print(f"new-bundle: {error}")
        return 1
    return 0


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="new-bundle", description=__doc__)
    parser.add_argument("--onnx", type=Path, required=True, help="the model")
    parser.add_argument("--picture", type=Path, help="an image for the model to answer; the result is drawn")
    parser.add_argument("--output", type=Path, help="folder of the bundle (default: the name)")
    parser.add_argument("--name", help="of the model (default: the file's)")
    parser.add_argument("--model-version", default="1.0.0", help="of the bundle (default 1.0.0)")
    parser.add_argument("--labels", type=Path, help="a text file, one label on a line")
    parser.add_argument("--decoder", choices=sorted(DECODERS), help="instead of the first that fits")
    parser.add_argument("--parameters", default="{}", help="of the decoder, as JSON")
    parser.add_argument("--size", type=int, nargs=2, metavar=("WIDTH", "HEIGHT"), help="where the model takes any")
    parser.add_argument(
        "--color", choices=("rgb", "bgr", "gray"), help="order of colours that the model was trained with"
    )
    parser.add_argument(
        "--pixels", choices=("raw", "unit", "imagenet"), help="0..255, 0..1, or less ImageNet's mean by its deviation"
    )
    return parser.parse_args(given)


def proposed(options: argparse.Namespace) -> Proposal:
    """What model.json says of the file's inputs and labels. Raises NotPossibleError."""
    try:
        session = runtime().InferenceSession(options.onnx.read_bytes(), providers=["CPUExecutionProvider"])
    except OSError:
        raise
    except Exception as error:  # of ONNX Runtime, which share no base class
        raise NotPossibleError(f"{options.onnx}: ONNX Runtime cannot load it: {first_line(error)}") from error
    metadata = session.get_modelmeta().custom_metadata_map
    proposal = Proposal({"name": _name(options), "version": options.model_version})
    first, *more = session.get_inputs()
    if more:
        names = ", ".join(f"{one.name} {one.type} {one.shape}" for one in more)
        raise NotPossibleError(f"the model has further inputs ({names}): write extra_inputs in model.json by hand")
    proposal.manifest["input"] = image(options, first, metadata, proposal) if len(first.shape) == 4 else vector(first)
    if options.labels:
        labels = options.labels.read_text(encoding="utf-8").split("\n")
        proposal.manifest["labels"] = [label.strip() for label in labels if label.strip()]
        proposal.reasons.append(f"labels: {len(proposal.manifest['labels'])} of {options.labels}")
    elif "names" in metadata:
        proposal.reasons.append("labels: those that the exporter left in the model")
    else:
        proposal.reasons.append("labels: none, so results have numbers; --labels names a file of them")
    return proposal


def _name(options: argparse.Namespace) -> str:
    return options.name or re.sub(r"[^A-Za-z0-9_-]", "-", options.onnx.stem)[:64]


def vector(found: Any) -> dict[str, Any]:
    """A model of numbers. Raises NotPossibleError where it takes any count of them."""
    sides = found.shape[1:]
    if not sides or not all(isinstance(side, int) for side in sides):
        raise NotPossibleError(f"expected an image or a fixed count of numbers, input {found.name} is {found.shape}")
    return {"name": found.name, "layout": "tensor", "shape": sides, "dtype": dtype(found)}


def dtype(found: Any) -> str:
    kind = str(found.type)
    return DTYPES.get(kind, kind.removeprefix("tensor(").removesuffix(")"))


def image(options: argparse.Namespace, found: Any, metadata: dict[str, str], proposal: Proposal) -> dict[str, Any]:
    """Layout, size, colour and scale of an image input, with the reasons. Raises NotPossibleError."""
    layout = "NCHW" if found.shape[1] in (1, 3) else "NHWC"
    channels = found.shape[1 if layout == "NCHW" else 3]
    if channels not in (1, 3):
        raise NotPossibleError(f"expected 1 or 3 channels, input {found.name} is {found.shape}")
    sides = found.shape[2:] if layout == "NCHW" else found.shape[1:3]
    size = list(options.size or _size(sides, metadata))
    if not size:
        raise NotPossibleError(f"input {found.name} takes pictures of any size ({found.shape}): name one with --size")
    ultralytics = "ultralytics" in metadata.get("author", "").lower()
    task = ULTRALYTICS.get(metadata.get("task", ""), "")
    pixels = options.pixels or ("unit" if ultralytics else "raw")
    color = options.color or ("gray" if channels == 1 else "rgb")
    made = {"name": found.name, "layout": layout, "size": size, "color": color, "dtype": dtype(found)}
    if task == "classification":
        made |= {"resize": "crop", "resize_shorter": max(size)}
    elif task == "detection":
        made["resize"] = "letterbox"
    if pixels != "raw":
        made["scale"] = 1 / 255
    if pixels == "imagenet":
        made |= {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    why = "ultralytics trains so" if ultralytics and not options.pixels else "as named" if options.pixels else "a guess"
    proposal.reasons += [
        f"input {found.name}: {layout}, {size[0]}x{size[1]}, {color}, {made['dtype']}",
        f"pixels: {pixels} ({why}; --pixels names another: wrong ones lower the scores)",
        f"resize: {made.get('resize', 'stretch')}",
    ]
    return made


def _size(sides: Sequence[Any], metadata: dict[str, str]) -> Sequence[int]:
    """Width and height by the input's own shape, or by the exporter's `imgsz` (height, width)."""
    if all(isinstance(side, int) and side > 0 for side in sides):
        return sides[1], sides[0]
    try:
        named = ast.literal_eval(metadata.get("imgsz", "[]"))
        return (int(named[1]), int(named[0])) if len(named) == 2 else ()
    except (ValueError, SyntaxError, TypeError):
        return ()


def written(options: argparse.Namespace, proposal: Proposal, folder: Path) -> Runner:
    """The bundle, with the first decoder that fits, in `folder`, which appears when all is in it.

    Raises NotPossibleError with what each decoder expected.
    """
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.resolve().parent) as parent:
        made = Path(parent) / folder.name
        made.mkdir()
        shutil.copyfile(options.onnx, made / "model.onnx")
        proposal.manifest["sha256"] = models.sha256(made / "model.onnx")
        refused, parameters = [], _parameters(options.parameters)
        for task, decoder in _decoders(options.decoder):
            output = {"decoder": decoder, "parameters": parameters}
            text = json.dumps({**proposal.manifest, "task": task, "output": output}, indent=2)
            (made / "model.json").write_text(text + "\n", encoding="utf-8")
            try:
                opened(made)
            except EdgemlError as error:
                refused.append(f"{decoder}: {str(error).replace(f'{made}/', '')}")
                continue
            proposal.reasons.append(f"decoder {decoder}: " + ("as named" if options.decoder else "the first that fits"))
            made.rename(folder)
            return opened(folder)
    raise NotPossibleError("no decoder fits:\n" + "\n".join(f"- {each}" for each in refused))


def _parameters(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise NotPossibleError(f"--parameters: expected a JSON object, found {text}")
    return found


def _decoders(named: str | None) -> list[tuple[str, str]]:
    tasks = {decoder: task for task, decoders in TRIED.items() for decoder in decoders}
    tasks |= {"yolox": "detection", "sigmoid": "classification", "anomaly": "anomaly"}
    return [(tasks[named], named)] if named else [(task, one) for task, ones in TRIED.items() for one in ones]


def opened(folder: Path) -> Runner:
    """The bundle as a pipeline opens it: verified, loaded, run once on zeros. Raises EdgemlError."""
    bundle = models.load(folder)
    session = models.open_session(bundle, threads=1)
    models.probe(session, bundle)
    pipeline = Pipeline(source=CameraSource(camera="camera"), backend=OnnxBackend(model=bundle.ref.name))
    runner = runner_of(bundle, session, pipeline)
    runner.rehearse()
    return runner


def shown(runner: Runner, picture: Path, target: Path) -> list[str]:
    """What the model answers for a picture, one line each, and where it is drawn."""
    pixels = np.asarray(cv2.imread(str(picture), cv2.IMREAD_COLOR))
    outcome = runner.infer(Sample(pixels, SampleRef(), 0, "bgr24"))
    if outcome is None:
        return ["the model gives no answer for one picture"]
    results = outcome.results if isinstance(outcome.results, list) else [outcome.results]
    for result in results:
        if "box" in result.__struct_fields__:
            _draw(pixels, result)
    cv2.imwrite(str(target), pixels)
    lines = [encode(result).decode() for result in results[:10]]
    took = f"inference {outcome.timer.inference * 1000:.1f} ms"
    return [*(lines or ["nothing was found"]), f"{target}: {len(results)} results, {took}"]


def _draw(pixels: np.ndarray[Any, Any], found: Any) -> None:
    x, y, width, height = (round(side) for side in found.box)
    cv2.rectangle(pixels, (x, y), (x + width, y + height), GREEN, 2)
    for outline in found.outlines:
        cv2.polylines(pixels, [np.round(np.array(outline)).astype(np.int32)], True, GREEN, 1)
    for point in found.landmarks:
        cv2.circle(pixels, (round(point[0]), round(point[1])), 2, GREEN, -1)
    cv2.putText(
        pixels, f"{found.label} {found.score:.2f}", (x, max(y - 4, 12)), cv2.FONT_HERSHEY_SIMPLEX, 0.5, GREEN, 1
    )


if __name__ == "__main__":
    raise SystemExit(main())

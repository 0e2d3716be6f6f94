"""What the makers of detectors find in made-up outputs of their models, kept in decoders_reference.json.

    .venv/bin/python tests/peers/decoders_reference.py PYTHON

makes the file anew by a PYTHON that can import ultralytics (YOLO), rtmlib (YOLOX), transformers (DETR) and torchvision
(SSD). Boxes are corners in pixels of the input; a mask is 160 x 128 bits, packed, deflated, in base64.
"""

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import decoder_cases as cases

KEPT = Path(__file__).with_suffix(".json")
DRIVER = """
import base64, json, sys, types, zlib
from importlib.metadata import version
import numpy, torch

asked = json.load(sys.stdin)
width, height = asked["size"]
threshold, nms, answers = asked["threshold"], asked["nms"], {}

def array(case, name):
    kind, shape, text = asked["cases"][case][name]
    found = numpy.frombuffer(base64.b64decode(text), kind).reshape(shape).copy()
    return found

def told(boxes, scores, classes, **more):
    boxes, scores = (numpy.asarray(value, float) for value in (boxes, scores))
    classes = numpy.asarray(classes).astype(int).tolist()
    return {"boxes": boxes.round(3).tolist(), "scores": scores.round(5).tolist(), "classes": classes, **more}

def packed(masks):
    bits = [numpy.packbits(mask.numpy().astype(bool)).tobytes() for mask in masks]
    return [base64.b64encode(zlib.compress(each, 9)).decode() for each in bits]

from ultralytics.utils.nms import non_max_suppression
from ultralytics.utils.ops import process_mask
for case in asked["cases"]:
    if not case.startswith("yolo_"):
        continue
    table = torch.from_numpy(array(case, "output0"))
    if case == "yolo_v5":  # its scores are multiplied before
        table = torch.cat([table[..., :4], table[..., 4:5] * table[..., 5:]], -1).transpose(1, 2)
    final = "v10" in case
    (found,) = non_max_suppression(table, threshold, nms, nc=0 if final else asked["labels"], end2end=final)
    more = {}
    if "pose" in case:
        more = {"keypoints": found[:, 6:].numpy().astype(float).round(3).tolist()}
    if "segment" in case:
        protos = torch.from_numpy(array(case, "output1"))[0]
        more = {"masks": packed(process_mask(protos, found[:, 6:], found[:, :4], (height, width), upsample=True))}
    answers[case] = told(found[:, :4], found[:, 4], found[:, 5], **more)

from rtmlib.tools.object_detection import post_processings, yolox
kept = []
original = yolox.multiclass_nms
def noted(*given, **named):
    kept.append(original(*given, **named))
    return kept[-1]
yolox.multiclass_nms = noted
model = types.SimpleNamespace(model_input_size=(height, width), nms_thr=nms, score_thr=threshold, det_mode="multiclass")
yolox.YOLOX.postprocess(model, array("yolox", "output"), 1.0)
rows = kept[0][0]
answers["yolox"] = told(rows[:, :4], rows[:, 4], rows[:, 5])

from transformers.models.detr.image_processing_detr import DetrImageProcessor
from transformers.models.rt_detr.image_processing_rt_detr import RTDetrImageProcessor
for case, processor in (("detr", DetrImageProcessor), ("rt_detr", RTDetrImageProcessor)):
    outputs = types.SimpleNamespace(
        **{name: torch.from_numpy(array(case, name)) for name in ("logits", "pred_boxes")}
    )
    (found,) = processor().post_process_object_detection(outputs, threshold=threshold, target_sizes=[(height, width)])
    answers[case] = told(found["boxes"], found["scores"], found["labels"])

from torchvision.models.detection import ssd
from torchvision.models.detection._utils import BoxCoder
model = types.SimpleNamespace(
    box_coder=BoxCoder((10.0, 10.0, 5.0, 5.0)), score_thresh=threshold, nms_thresh=nms, topk_candidates=400,
    detections_per_img=200,
)
places = torch.from_numpy(array("ssd", "anchors.npy")) * torch.tensor([width, height, width, height])
places = torch.cat([places[:, :2] - places[:, 2:] / 2, places[:, :2] + places[:, 2:] / 2], 1)
heads = {name: torch.from_numpy(array("ssd", name)) for name in ("bbox_regression", "cls_logits")}
(found,) = ssd.SSD.postprocess_detections(model, heads, [places], [(height, width)])
answers["ssd"] = told(found["boxes"], found["scores"], found["labels"] - 1)

packages = ("ultralytics", "rtmlib", "transformers", "torchvision")
json.dump({"versions": {name: version(name) for name in packages}, "answers": answers}, sys.stdout)
"""


def made(python: str) -> dict[str, Any]:
    """The answers by what `python` can import. Raises CalledProcessError."""
    given = {}
    for name, (_, make) in cases.CASES.items():
        case = make()
        arrays = {**case.outputs, **case.files}
        given[name] = {
            key: [value.dtype.str, value.shape, base64.b64encode(value.tobytes()).decode()]
            for key, value in arrays.items()
        }
    asked = {
        "size": cases.SIZE,
        "threshold": cases.THRESHOLD,
        "nms": cases.NMS,
        "labels": len(cases.LABELS),
        "cases": given,
    }
    done = subprocess.run(
        [python, "-c", DRIVER], input=json.dumps(asked), capture_output=True, text=True, timeout=300, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    KEPT.write_text(json.dumps(made(sys.argv[1]), indent=1) + "\n", encoding="utf-8")

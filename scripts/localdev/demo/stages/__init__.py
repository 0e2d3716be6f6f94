"""The stages of the demo, in the order of the summary."""

from localdev.demo.stage import Stage
from localdev.demo.stages.faces import CameraCapture, Inferencer, IotCore, S3Crops

STAGES: list[type[Stage]] = [CameraCapture, Inferencer, IotCore, S3Crops]

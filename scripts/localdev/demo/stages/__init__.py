"""The stages of the demo, in the order of the summary."""

from localdev.demo.stage import Stage
from localdev.demo.stages.boards import Dashboards
from localdev.demo.stages.chain import Chain
from localdev.demo.stages.clip import Clip
from localdev.demo.stages.durations import Regression
from localdev.demo.stages.edge_impulse import EdgeImpulseRunner, SerialScraper
from localdev.demo.stages.events import Events
from localdev.demo.stages.faces import CameraCapture, Inferencer, IotCore, S3Crops
from localdev.demo.stages.handlers import EdgeLogs, Emotions, SampleCollection
from localdev.demo.stages.live import LiveInference
from localdev.demo.stages.logs import LogShipper
from localdev.demo.stages.monitor import Monitor
from localdev.demo.stages.ota import Ota
from localdev.demo.stages.pictures import Classification
from localdev.demo.stages.privacy import PrivacyBlur
from localdev.demo.stages.tracks import Tracks
from localdev.demo.stages.turbine import Anomaly
from localdev.demo.stages.yard import Motion, PrivacyMask

STAGES: list[type[Stage]] = [
    *(CameraCapture, Inferencer, IotCore, S3Crops, PrivacyBlur, Tracks, Events, Chain),
    *(Motion, PrivacyMask, Clip),
    *(Classification, Anomaly, Regression),
    *(EdgeImpulseRunner, SerialScraper),
    *(Emotions, EdgeLogs, SampleCollection, LiveInference),
    *(LogShipper, Ota, Dashboards, Monitor),
]

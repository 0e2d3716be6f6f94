"""A wind turbine: readings in, anomalies out (autoencoder.py), both to the cloud's dashboards (telemetry.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from msgspec import Meta

if TYPE_CHECKING:
    import onnxruntime as ort

    from edgeml.bundle import Bundle
    from inferencer.parts import Pipeline
    from inferencer.tasks.runner import Runner

VerdictEvery = Annotated[
    float, Meta(ge=0, le=3600, description="Anomaly: seconds between verdicts; 0 gives one with each reading")
]


def runner(bundle: Bundle, session: ort.InferenceSession, pipeline: Pipeline) -> Runner:
    from inferencer.tasks.turbine.autoencoder import TurbineRunner

    return TurbineRunner(bundle, session, pipeline)

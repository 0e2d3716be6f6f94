"""Which detection is which object, over the frames of a camera."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from msgspec import Meta

from inferencer.parts import DetectionSettings

if TYPE_CHECKING:
    from inferencer.parts import Model, Place


class Tracking(DetectionSettings, frozen=True):
    # (A docstring would become the schema's description.)
    lost_s: Annotated[
        float, Meta(gt=0, le=60, description="Seconds for which an object that is not seen may come back")
    ] = 2.0
    stationary_s: Annotated[
        float, Meta(gt=0, le=3600, description="Seconds without movement after which an object is stationary")
    ] = 5.0
    stationary_every: Annotated[
        int,
        Meta(ge=1, le=1000, description="While all objects are stationary the model looks at each Nth frame alone"),
    ] = 1
    low_score: Annotated[
        float,
        Meta(ge=0, le=1, description="Detections from here to the threshold go on with an object, and begin none"),
    ] = 0.1

    @property
    def lowest(self) -> float:
        return self.low_score

    def around(self, model: Model, place: Place) -> Model:
        from inferencer.tracking.tracked import Tracked

        return Tracked(model, self, place)

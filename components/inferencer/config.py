"""Configuration of edgeml.Inferencer."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from edgeml.fields import BucketOrNone, ClockWait, KeyPrefix, Name, Topic, TopicOrNone

# MQTT 3.1.1, 4.7: `+` for a whole level, `#` for the last one and all below.
_FILTER = r"^(#|([^/+#\x00]*|\+)(/([^/+#\x00]*|\+))*(/#)?)$(?!\n)"


class CameraSource(msgspec.Struct, frozen=True, tag="camera", tag_field="type"):
    camera: Annotated[Name, Meta(description="Camera whose frame ring is read")]
    policy: Annotated[
        Literal["newest", "every"], Meta(description="Skip to the newest frame, or take each one still in the ring")
    ] = "newest"
    max_fps: Annotated[float, Meta(ge=0, le=1000, description="At most so many frames per second; 0 for no limit")] = 0


class RequestSource(msgspec.Struct, frozen=True, tag="request", tag_field="type"):
    topic: Annotated[
        str, Meta(min_length=1, description="Local topic of requests `{image_dir, fname, request_id?}`")
    ] = "local/inference"
    reply_topic: Annotated[str, Meta(min_length=1, description="Local topic of the answers")] = "local/result"
    result_format: Annotated[
        Literal["label", "full"], Meta(description="Answer with the top label, or with the whole InferenceResult")
    ] = "label"
    allowed_dirs: Annotated[
        tuple[str, ...], Meta(description="Folders below which requests may read, links resolved; none by default")
    ] = ()
    max_pixels: Annotated[int, Meta(ge=1, le=10**9, description="Larger images are refused unread")] = 50_000_000
    queue: Annotated[int, Meta(ge=1, le=10_000, description="Requests that wait; further ones get an error")] = 64


class TopicSource(msgspec.Struct, frozen=True, tag="topic", tag_field="type"):
    topic: Annotated[str, Meta(min_length=1, description="Local topic of numbers: JSON list, JSON object, or CSV")]
    queue: Annotated[int, Meta(ge=1, le=100_000, description="Messages that wait; further ones are dropped")] = 1000


class MqttSource(msgspec.Struct, frozen=True, tag="mqtt", tag_field="type"):
    host: Annotated[str, Meta(min_length=1, description="MQTT broker")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=1, le=65535, description="Its port")] = 1883
    topic: Annotated[str, Meta(min_length=1, pattern=_FILTER, description="Topic filter")] = "turbine/raw"
    qos: Annotated[int, Meta(ge=0, le=1, description="Quality of service of the subscription")] = 0
    tls: Annotated[bool, Meta(description="Encrypt and check the broker's certificate")] = False
    ca_file: Annotated[str, Meta(description="CA certificates (PEM); empty takes the system's")] = ""
    user: Annotated[str, Meta(description="User name; empty connects without")] = ""
    password_secret: Annotated[str, Meta(description="Name or ARN of the secret that holds the password")] = ""
    queue: Annotated[int, Meta(ge=1, le=100_000, description="Messages that wait; further ones are dropped")] = 1000


class TimerSource(msgspec.Struct, frozen=True, tag="timer", tag_field="type"):
    every_s: Annotated[float, Meta(gt=0, le=86400, description="Seconds between two readings")] = 1.0
    file: Annotated[str, Meta(description="Image, .npy or text file, read anew each time")] = ""
    camera: Annotated[str, Meta(description="Camera whose newest frame is taken, instead of a file")] = ""


class CallerSource(msgspec.Struct, frozen=True, tag="caller", tag_field="type"):
    rate_hz: Annotated[float, Meta(gt=0, le=1000, description="Questions per second")] = 5.0
    file: Annotated[str, Meta(description="CSV with a header, one sample a row, asked round and round")] = ""
    target: Annotated[str, Meta(description="Column of the file that holds the measured value")] = ""
    topic: Annotated[
        str, Meta(description="Local topic of samples `{id?, features, measured?}` instead; the newest is asked")
    ] = ""
    measured_topic: Annotated[
        str, Meta(description="Local topic on which measured values arrive later: `{id, measured}`")
    ] = ""


Source = CameraSource | RequestSource | TopicSource | MqttSource | TimerSource | CallerSource


class OnnxBackend(msgspec.Struct, frozen=True, tag="onnx", tag_field="type"):
    model: Annotated[Name, Meta(description="Name of an installed model bundle (edgeml.model.<name> or an update)")]
    path: Annotated[str, Meta(description="Folder of a bundle, instead of an installed one")] = ""
    providers: Annotated[
        tuple[str, ...], Meta(description="ONNX Runtime execution providers, the preferred one first")
    ] = ("CPUExecutionProvider",)
    threads: Annotated[int, Meta(ge=0, le=256, description="Threads of one inference; 0 lets ONNX Runtime choose")] = 1
    optimization: Annotated[
        Literal["all", "extended", "basic", "off"], Meta(description="Graph optimization level")
    ] = "all"


class Breaker(msgspec.Struct, frozen=True):
    failures: Annotated[int, Meta(ge=1, le=1000, description="Failures in a row that open the circuit")] = 5
    open_s: Annotated[float, Meta(gt=0, le=3600, description="Seconds until the next attempt")] = 15.0


class Remote(msgspec.Struct, frozen=True, kw_only=True):
    """What backends in the network share."""

    task: Annotated[Literal["classification", "detection", "regression"], Meta(description="What is answered")]
    labels: Annotated[tuple[str, ...], Meta(description="Names of the classes, in order")] = ()
    connect_timeout_s: Annotated[float, Meta(gt=0, le=60, description="Limit for connecting")] = 3.0
    read_timeout_s: Annotated[float, Meta(gt=0, le=70, description="Limit for an answer")] = 10.0
    attempts: Annotated[int, Meta(ge=1, le=10, description="Attempts per input, with backoff and jitter between")] = 3
    max_in_flight: Annotated[
        int, Meta(ge=1, le=16, description="Inputs asked at the same time; meanwhile newer ones replace waiting ones")
    ] = 1
    breaker: Annotated[Breaker, Meta(description="Stops asking a backend that is down")] = Breaker()


class SageMakerBackend(Remote, frozen=True, kw_only=True, tag="sagemaker", tag_field="type"):
    endpoint: Annotated[str, Meta(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9-]{0,62}$", description="Endpoint name")]
    content_type: Annotated[
        Literal["image/jpeg", "application/x-npy", "text/csv", "application/json"], Meta(description="How inputs go")
    ] = "image/jpeg"
    answer: Annotated[
        Literal["results", "object_detection", "image_classification", "value"],
        Meta(description="Our container's JSON, an answer of SageMaker's built-in algorithms, or a number"),
    ] = "results"
    quality: Annotated[int, Meta(ge=10, le=100, description="JPEG quality")] = 90
    max_payload_bytes: Annotated[
        int, Meta(ge=1, le=25 * 2**20, description="Larger inputs are refused before sending")
    ] = 6 * 2**20


class HttpBackend(Remote, frozen=True, kw_only=True, tag="http", tag_field="type"):
    url: Annotated[
        str, Meta(pattern=r"^https?://[^\x00-\x20\x7f]+$(?!\n)", description="Asked as GET <url>?features=<csv>")
    ]
    api_key_secret: Annotated[str, Meta(description="Secret that holds the x-api-key; empty sends none")] = ""


Backend = OnnxBackend | SageMakerBackend | HttpBackend


class Local(msgspec.Struct, frozen=True):
    enabled: Annotated[bool, Meta(description="Publish each result on edgeml/inference/<pipeline>")] = True
    empty: Annotated[bool, Meta(description="Publish results in which nothing was found, too")] = True


class IotCore(msgspec.Struct, frozen=True):
    enabled: Annotated[bool, Meta(description="Publish results to AWS IoT Core")] = True
    topic: Annotated[Topic, Meta(description="Topic")] = "ModelInference"
    every: Annotated[int, Meta(ge=1, le=1_000_000, description="Publish each Nth result that is not empty")] = 1
    qos: Annotated[int, Meta(ge=0, le=1, description="MQTT quality of service")] = 1


class Crops(msgspec.Struct, frozen=True):
    bucket: Annotated[
        BucketOrNone, Meta(description="S3 bucket for crops of what was detected; empty uploads nothing")
    ] = ""
    prefix: Annotated[KeyPrefix, Meta(description="Keys are <prefix>/<thing>/<yyyy>/<mm>/<dd>/<id>-<n>.jpg")] = "faces"
    every: Annotated[int, Meta(ge=1, le=1_000_000, description="Crop each Nth result that is not empty")] = 1
    margin: Annotated[float, Meta(ge=0, le=2, description="Added on each side, as a fraction of the box")] = 0.2
    min_pixels: Annotated[int, Meta(ge=1, le=4096, description="Boxes with a shorter side below this are left")] = 16
    quality: Annotated[int, Meta(ge=10, le=100, description="JPEG quality")] = 90


class Telemetry(msgspec.Struct, frozen=True):
    enabled: Annotated[bool, Meta(description="Publish turbine readings and verdicts to AWS IoT Core")] = False
    topic: Annotated[TopicOrNone, Meta(description="Topic; empty is device/<thing>/logs")] = ""
    rawdata_every_s: Annotated[float, Meta(ge=0, le=86400, description="Seconds between readings; 0 sends each")] = 1.0
    inference_every_s: Annotated[float, Meta(ge=0, le=86400, description="Seconds between verdicts; 0 sends each")] = (
        1.0
    )


class Pipeline(msgspec.Struct, frozen=True):
    source: Annotated[Source, Meta(description="Where inputs come from")]
    backend: Annotated[Backend, Meta(description="What runs the model")]
    fallback: Annotated[Backend | None, Meta(description="What answers while the backend fails")] = None
    verdict_every_s: Annotated[
        float, Meta(ge=0, le=3600, description="Anomaly: seconds between verdicts; 0 gives one with each reading")
    ] = 1.0
    score_threshold: Annotated[
        float, Meta(ge=0, le=1, description="Results below it are left out; 0 takes the model's own threshold")
    ] = 0
    top_k: Annotated[int, Meta(ge=1, le=1000, description="Classification: labels per result")] = 5
    local: Annotated[Local, Meta(description="Results on local topics")] = Local()
    iot_core: Annotated[IotCore, Meta(description="Results on AWS IoT Core")] = IotCore(enabled=False)
    crops: Annotated[Crops, Meta(description="Crops of detections in S3")] = Crops()
    telemetry: Annotated[Telemetry, Meta(description="Turbine readings and verdicts")] = Telemetry()


class Config(msgspec.Struct, frozen=True):
    pipelines: Annotated[dict[Name, Pipeline], Meta(description="Pipelines by name")] = {}
    ring_directory: Annotated[str, Meta(description="Folder of the frame rings, as CameraCapture has it")] = "/dev/shm"  # noqa: S108
    crop_spool_bytes: Annotated[
        int, Meta(ge=0, le=2**40, description="Disk space for crops that wait for S3; the oldest go first")
    ] = 256 * 2**20
    result_spool_bytes: Annotated[
        int, Meta(ge=0, le=2**40, description="Disk space for results that wait for IoT Core; the oldest go first")
    ] = 16 * 2**20
    clock_wait_s: ClockWait = 600.0

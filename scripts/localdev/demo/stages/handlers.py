"""What the cloud's handlers make of what arrives: emotions of faces, lines of the turbine's logs, files of samples."""

import itertools
import json
import time
from collections import Counter
from typing import Any

from localdev.demo.stage import THING, Evidence, Stage
from localdev.simulators.interaction import FEATURES, TARGET, interactions

TURBINE_LOGS = "/edgeml/turbine"
FACES_TABLE = "rekognize-faces"
EMOTIONS = "EdgeML/Emotions"
SAMPLES = 40


class Emotions(Stage):
    name = "emotions"
    title = "face crops in S3 -> Rekognition (stand-in) -> DynamoDB and CloudWatch"
    needs = ("s3_crops",)

    def prepare(self) -> None:
        self._items: list[dict[str, Any]] = []
        self._looked = 0.0

    def tick(self) -> None:
        if time.monotonic() - self._looked > 1:
            self._looked = time.monotonic()
            self._look()

    def _look(self) -> None:
        pages = self.world.cloud.aws.client("dynamodb").get_paginator("scan").paginate(TableName=FACES_TABLE)
        self._items = [item for page in pages for item in page["Items"]]

    def progress(self) -> str:
        return f"{len(self._items)} faces judged"

    def finish(self) -> None:
        self.world.cloud.drain()
        self._look()
        metrics = self.world.cloud.aws.client("cloudwatch").list_metrics(Namespace=EMOTIONS)["Metrics"]
        self._metrics = sorted({metric["MetricName"] for metric in metrics})

    def evidence(self) -> Evidence:
        strongest = Counter(
            max(item.keys() - {"s3key", "expires_at"}, key=lambda name: float(item[name]["S"])) for item in self._items
        )
        figures = {"items": len(self._items), "strongest": dict(strongest), "metrics": self._metrics}
        mine = all(item["s3key"]["S"].startswith(f"faces/{THING}/") for item in self._items)
        ok = bool(self._items) and mine and set(strongest) <= set(self._metrics)
        return Evidence(ok, figures, f"expected items in {FACES_TABLE} and metrics in {EMOTIONS}")


class EdgeLogs(Stage):
    name = "edge_logs"
    title = f"the turbine's messages on device/{THING}/logs become log lines"
    needs = ("anomaly",)

    def begin(self) -> None:
        self._heard: list[tuple[str, float]] = []  # type, its own time
        self._lines: dict[str, list[float]] = {}
        self._compared = self._missing = 0
        self.world.iot.hear(f"device/{THING}/logs", self._message)

    def _message(self, topic: str, payload: bytes) -> None:
        message = json.loads(payload)
        self._heard.append((message["type"], message["data"]["ts"] if "data" in message else message["ts"]))

    def progress(self) -> str:
        return f"{len(self._heard)} messages"

    def finish(self) -> None:
        heard = list(self._heard)  # more may come while we look
        self.world.cloud.drain()
        pages = self.world.cloud.aws.client("logs").get_paginator("filter_log_events")
        for event in itertools.chain(*(page["events"] for page in pages.paginate(logGroupName=TURBINE_LOGS))):
            self._lines.setdefault(event["logStreamName"], []).append(float(event["message"].split()[0]))
        self._compared = len(heard)
        self._missing = sum(at not in self._lines.get(kind, []) for kind, at in heard)

    def evidence(self) -> Evidence:
        lines = {stream: len(times) for stream, times in self._lines.items()}
        figures = {"messages": self._compared, "lines": lines, "messages_without_line": self._missing}
        ok = {"rawdata", "inference"} == set(lines) and not self._missing
        return Evidence(ok, figures, f"expected a line in {TURBINE_LOGS} for each message")


class SampleCollection(Stage):
    name = "sample_collection"
    title = "samples on an SNS topic -> Firehose -> lines of files in S3"

    def begin(self) -> None:
        rows = itertools.islice(interactions(SAMPLES), SAMPLES)
        self._waiting = [dict(zip((*FEATURES, TARGET), row, strict=True)) for row in rows]
        self._sent: list[dict[str, float]] = []
        self._found: list[dict[str, float]] = []
        self._files = 0

    def tick(self) -> None:
        if self._waiting:
            sample = self._waiting.pop()
            topic = self.world.outputs["SampleTopicArn"]
            self.world.cloud.aws.client("sns").publish(TopicArn=topic, Message=json.dumps(sample))
            self._sent.append(sample)

    def progress(self) -> str:
        return f"{len(self._sent)} samples sent"

    def finish(self) -> None:
        self.world.cloud.drain()
        s3, bucket = self.world.cloud.aws.client("s3"), self.world.outputs["DataBucketName"]
        for item in s3.list_objects_v2(Bucket=bucket, Prefix="samples/").get("Contents", []):
            self._files += 1
            lines = s3.get_object(Bucket=bucket, Key=item["Key"])["Body"].read().splitlines()
            self._found += [json.loads(line) for line in lines]

    def evidence(self) -> Evidence:
        def ordered(samples: list[dict[str, float]]) -> list[float]:
            return sorted(sample[TARGET] for sample in samples)

        figures = {"sent": len(self._sent), "found": len(self._found), "files": self._files}
        ok = bool(self._sent) and ordered(self._sent) == ordered(self._found)
        return Evidence(ok, figures, "expected each sample once in a file under samples/")

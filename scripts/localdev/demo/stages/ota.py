"""A newer face detector reaches the device as an IoT job while frames flow; a broken one changes nothing."""

import base64
import hashlib
import io
import itertools
import json
import time
import zipfile
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from localdev.cloud.faces import bundle
from localdev.cloud.iot_jobs import IotJobs
from localdev.demo.stage import THING, Configuration, Evidence, Stage

MODEL, OLD, NEW, BROKEN = "FaceDetector", "1.0.0", "1.1.0", "1.2.0"
FLOWING = 20  # results before the first offer
FINISH_TIMEOUT_S = 15.0
REASON = 80  # characters shown


class Ota(Stage):
    name = "ota"
    title = "a signed model update as an IoT job while frames flow, then a broken one"
    needs = ("inferencer",)

    def prepare(self) -> None:
        cloud = self.world.cloud
        self._s3, self._iot = cloud.aws.client("s3"), cloud.aws.client("iot")
        self._jobs = IotJobs(cloud.aws, *cloud.mqtt_address)
        self._jobs.__enter__()
        self._iot.create_thing(thingName=THING)
        group = self.world.outputs["ThingGroupArn"].rpartition("/")[2]
        self._iot.add_thing_to_thing_group(thingGroupName=group, thingName=THING)
        self._key = Ed25519PrivateKey.generate()
        self._results: list[tuple[int, str, float]] = []  # frame, version of the model, when
        self._offered: dict[str, int] = {}  # version -> how many results there were
        self._executions: dict[str, dict[str, Any]] = {}

    def configuration(self) -> Configuration:
        public = base64.b64encode(self._key.public_key().public_bytes_raw()).decode()
        return {"model_updater": {"allow_http": True, "public_key": public}}

    def begin(self) -> None:
        self.world.hear("edgeml/inference/faces", self._result)

    def _result(self, topic: str, payload: bytes) -> None:
        result = json.loads(payload)
        self._results.append((result["source"]["frame_id"], result["model"]["version"], time.monotonic()))

    def tick(self) -> None:
        if NEW not in self._offered and len(self._results) >= FLOWING:
            self._offer(NEW, broken=False)
        elif BROKEN not in self._offered and self._status(NEW) == "SUCCEEDED" and self._results[-1][1] == NEW:
            self._offer(BROKEN, broken=True)

    def _offer(self, version: str, *, broken: bool) -> None:
        """What the build of an approved model leaves in S3: the bundle and, last, the signed job document."""
        bucket, folder = self.world.outputs["ModelBucketName"], f"demo/{version}"
        self._offered[version] = len(self._results)
        data = archive(version, broken=broken)
        digest, size = hashlib.sha256(data).hexdigest(), len(data)
        self._s3.put_object(Bucket=bucket, Key=f"{folder}/{MODEL}.zip", Body=data)
        url = f"https://s3.us-east-1.amazonaws.com/{bucket}/{folder}/{MODEL}.zip"
        signed = "\n".join(("edgeml-model", MODEL, version, digest, str(size), ""))
        document = {
            "operation": "update_model",
            "version": "1.0.0",
            "model_name": MODEL,
            "model_version": version,
            "deployment_artifact_path": f"${{aws:iot:s3-presigned-url:{url}}}",
            "sha256": digest,
            "size": size,
            "signature": base64.b64encode(self._key.sign(signed.encode())).decode(),
        }
        self._s3.put_object(Bucket=bucket, Key=f"{folder}/job.json", Body=json.dumps(document).encode())

    def _status(self, version: str) -> str:
        prefix = f"{MODEL}-{version}-".replace(".", "_")
        for job in self._iot.list_jobs()["jobs"]:
            if job["jobId"].startswith(prefix):
                try:
                    found = self._iot.describe_job_execution(jobId=job["jobId"], thingName=THING)["execution"]
                except self._iot.exceptions.ResourceNotFoundException:
                    return "not rolled out"
                self._executions[version] = found
                return str(found["status"])
        return "no job"

    def progress(self) -> str:
        version = self._results[-1][1] if self._results else "none"
        jobs = [f"{offered} {self._status(offered)}" for offered in list(self._offered)]
        return f"model {version} answers; {', '.join(jobs) or 'nothing offered yet'}"

    def finish(self) -> None:
        deadline = time.monotonic() + FINISH_TIMEOUT_S
        while self._status(BROKEN) != "FAILED" and time.monotonic() < deadline:
            time.sleep(0.25)
            self.tick()
        self._at_end = len(self._results)
        while len(self._results) < self._at_end + FLOWING and time.monotonic() < deadline:
            time.sleep(0.1)  # the old version must still answer after the refusal

    def evidence(self) -> Evidence:
        window = self._results[max(0, self._offered.get(NEW, 0) - FLOWING) :]
        frames, versions = [frame for frame, _, _ in window], [version for _, version, _ in window]
        switched = versions.index(NEW) if NEW in versions else 0
        missing = frames[-1] - frames[0] + 1 - len(set(frames)) if frames else 0
        gaps = [later - earlier for (_, _, earlier), (_, _, later) in itertools.pairwise(window)]
        figures = {
            "update": self._status(NEW),
            "frames_watched": len(frames),
            "frames_missing": missing,
            "longest_pause_ms": round(max(gaps, default=0) * 1e3),
            "pause_at_switch_ms": round(gaps[switched - 1] * 1e3) if switched else None,
            "broken_update": self._status(BROKEN),
            "refused_because": self._reason(BROKEN),
            "answering": versions[-1] if versions else "",
        }
        in_order = switched > 0 and versions == [OLD] * switched + [NEW] * (len(versions) - switched)
        still = len(self._results) > self._at_end and versions[-1:] == [NEW]
        ok = (figures["update"], figures["broken_update"], missing) == ("SUCCEEDED", "FAILED", 0) and in_order and still
        return Evidence(ok, figures, f"expected {NEW} without a lost frame, and {BROKEN} refused")

    def _reason(self, version: str) -> str:
        details = self._executions.get(version, {}).get("statusDetails", {}).get("detailsMap", {})
        return str(details.get("reason", "")).partition(": ")[2][:REASON]  # after the file's name

    def end(self) -> None:
        if hasattr(self, "_jobs"):
            self._jobs.__exit__()


def archive(version: str, *, broken: bool) -> bytes:
    """The face detector under another version; `broken`: its network is cut off, with hashes that say it is right."""
    files = {path.name: path.read_bytes() for path in bundle("face_detector").iterdir()}
    manifest = json.loads(files["model.json"])
    if broken:
        files["model.onnx"] = files["model.onnx"][: len(files["model.onnx"]) // 2]
    manifest |= {"version": version, "sha256": hashlib.sha256(files["model.onnx"]).hexdigest()}
    files["model.json"] = json.dumps(manifest).encode()
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as made:
        for name, content in files.items():
            made.writestr(name, content)
    return data.getvalue()

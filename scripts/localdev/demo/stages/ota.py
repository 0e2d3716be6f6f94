"""A newer face detector is approved and reaches the device while frames flow; a broken one changes nothing."""

import base64
import hashlib
import io
import itertools
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Sequence
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from localdev.cloud.iot_jobs import IotJobs
from localdev.demo.stage import SIGNING_KEY, THING, Configuration, Evidence, Stage
from localdev.workspace import ROOT, bundle

MODEL, OLD, NEW, BROKEN = "FaceDetector", "1.1.1", "1.2.0", "1.3.0"
REGISTER = ROOT / "cloud" / "training" / "register_model.py"
REGISTER_TIMEOUT_S = 60
FLOWING = 20  # results before the approval
AROUND = 10  # results on each side of the switch
CALM_S, LATEST_S = 0.5, 6.0  # how old the newest result may be at the approval, which comes after so long at the latest
FINISH_TIMEOUT_S = 15.0
REASON = 80  # characters shown


class Ota(Stage):
    name = "ota"
    title = "an approved model is exported, signed and installed while frames flow; then a broken one is refused"
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
        pem = self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        cloud.aws.client("secretsmanager").create_secret(Name=SIGNING_KEY, SecretString=pem.decode())
        self._package = self._register(NEW)
        self._results: list[tuple[int, str, float]] = []  # frame, version of the model, when
        self._offered: dict[str, int] = {}  # version -> how many results there were
        self._executions: dict[str, dict[str, Any]] = {}
        self._approved = self._answering = 0.0  # when
        self._behind_s = 0.0  # how old the frame of the newest result was

    def _register(self, version: str) -> str:
        """What a data scientist does: the model, as training leaves it, waits for approval. Its package's ARN."""
        environment = os.environ | self.world.cloud.environment()
        with tempfile.NamedTemporaryFile(suffix=".tar.gz") as archive:
            archive.write(trained(version))
            archive.flush()
            command = [sys.executable, str(REGISTER), "--archive", archive.name, "--group", "edgeml-models"]
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=REGISTER_TIMEOUT_S, check=False
            )
        if done.returncode:
            raise SystemExit(f"{REGISTER.name}: {done.stderr.strip()}")
        return done.stdout.split()[-1]

    def configuration(self) -> Configuration:
        public = base64.b64encode(self._key.public_key().public_bytes_raw()).decode()
        return {"model_updater": {"allow_http": True, "public_key": public}}

    def begin(self) -> None:
        self.world.hear("edgeml/inference/faces", self._result)

    def _result(self, topic: str, payload: bytes) -> None:
        result = json.loads(payload)
        self._results.append((result["source"]["frame_id"], result["model"]["version"], time.monotonic()))
        self._behind_s = time.time() - result["source"]["captured_at"]
        if result["model"]["version"] == NEW and not self._answering:
            self._answering = time.monotonic()

    def tick(self) -> None:
        if NEW not in self._offered and len(self._results) >= FLOWING and self._is_calm():
            self._approve()
        elif BROKEN not in self._offered and self._status(NEW) == "SUCCEEDED" and self._results[-1][1] == NEW:
            self._offer_broken()

    def _is_calm(self) -> bool:
        """Whether the detector has come round after all that starts with it; it has some seconds for that."""
        return self._behind_s < CALM_S or time.monotonic() - self._results[0][2] > LATEST_S

    def _approve(self) -> None:
        """All that a person does. The event, the build, the job and the device follow by themselves."""
        self._offered[NEW], self._approved = len(self._results), time.monotonic()
        sagemaker = self.world.cloud.aws.client("sagemaker")
        kept = sagemaker.describe_model_package(ModelPackageName=self._package)["CustomerMetadataProperties"]
        sagemaker.update_model_package(  # moto forgets properties that an update does not repeat; AWS keeps them
            ModelPackageArn=self._package, ModelApprovalStatus="Approved", CustomerMetadataProperties=kept
        )

    def _offer_broken(self) -> None:
        """What no build would let pass, put into S3 by hand and signed: here only the device can refuse it."""
        bucket, folder = self.world.outputs["ModelBucketName"], f"demo/{BROKEN}"
        self._offered[BROKEN] = len(self._results)
        data = broken_bundle(BROKEN)
        digest, size = hashlib.sha256(data).hexdigest(), len(data)
        self._s3.put_object(Bucket=bucket, Key=f"{folder}/{MODEL}.zip", Body=data)
        url = f"https://s3.us-east-1.amazonaws.com/{bucket}/{folder}/{MODEL}.zip"
        signed = "\n".join(("edgeml-model", MODEL, BROKEN, digest, str(size), ""))
        document = {
            "operation": "update_model",
            "version": "1.0.0",
            "model_name": MODEL,
            "model_version": BROKEN,
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
        at_switch, elsewhere = _lost(frames, switched)
        gaps = [later - earlier for (_, _, earlier), (_, _, later) in itertools.pairwise(window)]
        figures = {
            "update": self._status(NEW),
            "approval_to_answer_s": round(self._answering - self._approved, 1) if self._answering else None,
            "frames_watched": len(frames),
            "frames_missing": at_switch,
            "missing_elsewhere": elsewhere,
            "longest_pause_ms": round(max(gaps, default=0) * 1e3),
            "pause_at_switch_ms": round(gaps[switched - 1] * 1e3) if switched else None,
            "broken_update": self._status(BROKEN),
            "refused_because": self._reason(BROKEN),
            "answering": versions[-1] if versions else "",
        }
        in_order = switched > 0 and versions == [OLD] * switched + [NEW] * (len(versions) - switched)
        still = len(self._results) > self._at_end and versions[-1:] == [NEW]
        # Where the machine cannot keep up, it loses frames all the time: the switch is to cost no more.
        ok = (figures["update"], figures["broken_update"]) == ("SUCCEEDED", "FAILED") and at_switch <= elsewhere
        return Evidence(ok and in_order and still, figures, f"expected {NEW}, no frame lost by it; {BROKEN} refused")

    def _reason(self, version: str) -> str:
        details = self._executions.get(version, {}).get("statusDetails", {}).get("detailsMap", {})
        return str(details.get("reason", "")).partition(": ")[2][:REASON]  # after the file's name

    def end(self) -> None:
        if hasattr(self, "_jobs"):
            self._jobs.__exit__()


def _lost(frames: Sequence[int], switched: int) -> tuple[int, int]:
    """Frames without a result among those around the switch, and the most among as many in a row elsewhere."""
    lost = [later - earlier - 1 for earlier, later in itertools.pairwise(frames)]
    first = max(0, switched - AROUND)
    rows = {start: sum(lost[start : start + 2 * AROUND]) for start in range(len(lost))}
    others = [count for start, count in rows.items() if abs(start - first) >= 2 * AROUND]
    return rows.get(first, 0), max(others, default=0)


def trained(version: str) -> bytes:
    """The face detector under another version, packed as training packs a model: model.tar.gz."""
    files, manifest = _files(version)
    for variant in manifest.pop("variants", []):
        del files[variant["file"]]
    draft = {key: value for key, value in manifest.items() if key not in ("sha256", "files")}
    files |= {"bundle.json": json.dumps(draft).encode(), "metrics.json": b"{}"}
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def broken_bundle(version: str) -> bytes:
    """The face detector with a network that is cut off, and hashes that say it is right."""
    files, manifest = _files(version)
    files["model.onnx"] = files["model.onnx"][: len(files["model.onnx"]) // 2]
    manifest["sha256"] = hashlib.sha256(files["model.onnx"]).hexdigest()
    files["model.json"] = json.dumps(manifest).encode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return packed.getvalue()


def _files(version: str) -> tuple[dict[str, bytes], dict[str, Any]]:
    """The bundle's files without its manifest, and the manifest for this version."""
    files = {path.name: path.read_bytes() for path in bundle("face_detector").iterdir()}
    return files, {**json.loads(files.pop("model.json")), "version": version}

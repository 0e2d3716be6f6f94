"""A job document in S3 -> one AWS IoT Job for the thing group, which offers the model to every device.

The job is continuous: a device that joins the group later gets the model, too. It takes the place of the job that
offered an earlier version of the same model, which would otherwise go on being offered to those that join.

The job's id is made from the version of the object, so an event that S3 or Lambda repeats makes no second job. What is
sent is what was checked: the text goes into the request, not a link to it.
"""

import base64
import hashlib
import json
import os
import re
from typing import Any
from urllib.parse import unquote, unquote_plus, urlsplit

import boto3
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.data_classes import S3Event
from aws_lambda_powertools.utilities.data_classes.s3_event import S3EventRecord
from aws_lambda_powertools.utilities.typing import LambdaContext
from botocore.config import Config
from botocore.exceptions import ClientError

METRICS_PREFIX = os.environ.get("METRICS_PREFIX", "EdgeML")
THING_GROUP_ARN = os.environ["THING_GROUP_ARN"]
ARTIFACT_BUCKET = os.environ["ARTIFACT_BUCKET"]
URL_ROLE_ARN = os.environ["URL_ROLE_ARN"]
URL_EXPIRES_S = int(os.environ.get("URL_EXPIRES_S", "3600"))
ROLLOUT_START_PER_MINUTE = int(os.environ.get("ROLLOUT_START_PER_MINUTE", "10"))
ROLLOUT_MAX_PER_MINUTE = int(os.environ.get("ROLLOUT_MAX_PER_MINUTE", "1000"))
ROLLOUT_FACTOR = float(os.environ.get("ROLLOUT_FACTOR", "2"))
ABORT_PERCENT = float(os.environ.get("ABORT_PERCENT", "10"))
ABORT_MIN_EXECUTED = int(os.environ.get("ABORT_MIN_EXECUTED", "5"))
TIMEOUT_MINUTES = int(os.environ.get("TIMEOUT_MINUTES", "120"))
REQUIRE_SIGNATURE = os.environ.get("REQUIRE_SIGNATURE", "true") == "true"

MAX_SUPERSEDED = 3  # jobs that give way to one: there is one, and more only after earlier attempts that failed
UNAPPROVED = "training/"  # what data scientists may write, see DataScienceRole in the template
MAX_DOCUMENT = 32_768  # characters, of AWS IoT
SIGNATURE_BYTES = 64  # of Ed25519; devices verify it, here it only has to be one
FIELDS = {
    "operation": r"update_model",
    "version": r"1(\.\d+)*",
    "model_name": r"[A-Za-z0-9_-]{1,64}",
    "model_version": r"v?\d+(\.\d+){0,3}(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?",
    "sha256": r"[0-9a-f]{64}",
}
PLACEHOLDER = re.compile(r"\$\{aws:iot:s3-presigned-url(?:-v2)?:(https://[^}]*)\}")
HOST = re.compile(r"(?:([a-z0-9][a-z0-9.-]*)\.)?s3(?:[.-][a-z0-9-]+)?\.amazonaws\.com(?:\.cn)?")

logger = Logger()
metrics = Metrics(namespace=f"{METRICS_PREFIX}/Models")
# Three calls for a document, together within the function's timeout even if every attempt hangs.
# Superseding needs a call more, and two for each job that gives way.
config = Config(connect_timeout=1, read_timeout=4, retries={"mode": "standard", "total_max_attempts": 3})
s3 = boto3.client("s3", config=config)
iot = boto3.client("iot", config=config)


class Refused(Exception):  # noqa: N818  (a verdict on the document: no retry would change it)
    """This object is not a job document that devices may be sent."""


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, list[str]]:
    """Ids of jobs that were made or existed, keys of objects that were refused. AWS's errors go to Lambda's retries."""
    answer: dict[str, list[str]] = {"created": [], "repeated": [], "refused": []}
    try:
        handle(event, answer)
    finally:
        metrics.add_metric(name="JobsCreated", unit=MetricUnit.Count, value=len(answer["created"]))
        metrics.add_metric(name="DocumentsRefused", unit=MetricUnit.Count, value=len(answer["refused"]))
    return answer


def handle(event: dict[str, Any], answer: dict[str, list[str]]) -> None:
    for record in S3Event(event).records if "Records" in event else ():  # s3:TestEvent has none
        key = unquote_plus(record.s3.get_object.key)
        try:
            if key.startswith(UNAPPROVED):
                raise Refused(f"{UNAPPROVED} holds no job documents")
            text = read(record.s3.bucket.name, key, record.s3.get_object.version_id)
            document = checked(text)
        except Refused as reason:
            logger.error("document refused", extra={"key": key, "reason": str(reason)})
            answer["refused"].append(key)
            continue
        job_id = job_id_of(document, record, key)
        outcome = "created" if create(job_id, text, document) else "repeated"
        supersede(job_id, document)
        logger.info("job", extra={"job": job_id, "outcome": outcome, "key": key, "target": THING_GROUP_ARN})
        answer[outcome].append(job_id)


def read(bucket: str, key: str, version: str | None) -> str:
    """The very version of the object that the event tells of. Raises Refused for what is too large, gone or no text."""
    which = {"VersionId": version} if version else {}
    try:
        found = s3.get_object(Bucket=bucket, Key=key, **which)
    except ClientError as error:
        if error.response["Error"]["Code"] in ("NoSuchKey", "NoSuchVersion"):
            raise Refused("the object was deleted") from error
        raise
    with found["Body"] as body:
        if found["ContentLength"] > 4 * MAX_DOCUMENT:  # UTF-8 has at most four bytes per character
            raise Refused(f"{found['ContentLength']} bytes, a job document has at most {MAX_DOCUMENT} characters")
        data = body.read()
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise Refused("not UTF-8") from error
    if len(text) > MAX_DOCUMENT:
        raise Refused(f"{len(text)} characters, a job document has at most {MAX_DOCUMENT}")
    return str(text)


def checked(text: str) -> dict[str, Any]:
    """The document. Raises Refused unless it is ours, complete, signed where it must be, and its artifact is there."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Refused(f"not JSON: {error}") from error
    if not isinstance(document, dict):
        raise Refused("not a JSON object")
    for name, pattern in FIELDS.items():
        value = document.get(name)
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise Refused(f"{name} is {str(value)[:100]!r}")
    size = document.get("size")
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise Refused(f"size is {size!r}")
    check_signatures(document)
    group = document.get("thing_group", "")
    if group not in ("", THING_GROUP_ARN.rpartition("/")[2]):
        raise Refused(f"thing_group is {str(group)[:100]!r}, jobs go to {THING_GROUP_ARN}")
    if not isinstance(document.get("allow_downgrade", False), bool):
        raise Refused(f"allow_downgrade is {str(document['allow_downgrade'])[:100]!r}, expected true or false")
    check_artifact(str(document.get("deployment_artifact_path")), size)
    return document


def check_signatures(document: dict[str, Any]) -> None:
    """Devices verify them; here they only have to be signatures. Version 1.0 on a device knows `signature` alone."""
    given = [name for name in ("signature", "signature_v2") if name in document]
    if REQUIRE_SIGNATURE and not given:
        raise Refused("not signed")
    for name in given:
        try:
            good = len(base64.b64decode(document[name], validate=True)) == SIGNATURE_BYTES
        except (ValueError, TypeError):
            good = False
        if not good:
            raise Refused(f"{name} is no Ed25519 signature in base64")


def check_artifact(path: str, size: int) -> None:
    """The role that signs URLs can read one bucket, and devices refuse an artifact of another size."""
    bucket, key = location(path)
    if bucket != ARTIFACT_BUCKET:
        raise Refused(f"deployment_artifact_path is in bucket {bucket[:100]!r}, expected {ARTIFACT_BUCKET}")
    if key.startswith(UNAPPROVED):
        raise Refused(f"{UNAPPROVED} holds no artifacts that were approved: {key}")
    try:
        held = s3.head_object(Bucket=bucket, Key=key)["ContentLength"]
    except ClientError as error:
        if error.response["Error"]["Code"] in ("404", "NoSuchKey"):
            raise Refused(f"there is no artifact {key}") from error
        raise
    if held != size:
        raise Refused(f"the artifact has {held} bytes, the document says {size}")


def location(path: str) -> tuple[str, str]:
    """Bucket and key of the URL that AWS IoT signs, in each of the forms that S3 has. Raises Refused."""
    found = PLACEHOLDER.fullmatch(path)
    if found is None:
        raise Refused(f"deployment_artifact_path is no ${{aws:iot:s3-presigned-url:https://...}}: {path[:200]!r}")
    url = urlsplit(found[1])
    host = HOST.fullmatch(url.netloc)
    if host is None:
        raise Refused(f"deployment_artifact_path has host {url.netloc[:100]!r}, expected one of Amazon S3")
    if url.query or url.fragment:
        raise Refused(f"deployment_artifact_path has a query or fragment: {path[:200]!r}")
    first, _, rest = url.path.removeprefix("/").partition("/")
    bucket, key = (host[1], url.path.removeprefix("/")) if host[1] else (first, rest)
    if not bucket or not key:
        raise Refused(f"deployment_artifact_path has no {'key' if bucket else 'bucket'}: {path[:200]!r}")
    return str(bucket), unquote(key)


def job_id_of(document: dict[str, Any], record: S3EventRecord, key: str) -> str:
    """At most 64 of the characters that AWS IoT allows; the same for the same version of the same object."""
    thing = record.s3.get_object
    source = "\n".join((record.s3.bucket.name, key, thing.version_id or thing.etag))
    digest = hashlib.sha256(source.encode()).hexdigest()[:16]
    name = re.sub(r"[^A-Za-z0-9_-]", "_", f"{document['model_name']}-{document['model_version']}")
    return f"{name[:47]}-{digest}"


def create(job_id: str, text: str, document: dict[str, Any]) -> bool:
    """Whether the job is new."""
    try:
        iot.create_job(
            jobId=job_id,
            targets=[THING_GROUP_ARN],
            document=text,
            description=f"{document['model_name']} {document['model_version']}",
            presignedUrlConfig={"roleArn": URL_ROLE_ARN, "expiresInSec": URL_EXPIRES_S},
            targetSelection="CONTINUOUS",
            jobExecutionsRolloutConfig={
                "maximumPerMinute": ROLLOUT_MAX_PER_MINUTE,
                "exponentialRate": {
                    "baseRatePerMinute": ROLLOUT_START_PER_MINUTE,
                    "incrementFactor": ROLLOUT_FACTOR,
                    "rateIncreaseCriteria": {"numberOfSucceededThings": ROLLOUT_START_PER_MINUTE},
                },
            },
            abortConfig={
                "criteriaList": [
                    {
                        "failureType": "ALL",
                        "action": "CANCEL",
                        "thresholdPercentage": ABORT_PERCENT,
                        "minNumberOfExecutedThings": ABORT_MIN_EXECUTED,
                    }
                ]
            },
            timeoutConfig={"inProgressTimeoutInMinutes": TIMEOUT_MINUTES},
        )
    except iot.exceptions.ResourceAlreadyExistsException:
        return False
    return True


def supersede(job_id: str, document: dict[str, Any]) -> None:
    """Cancel the jobs that still offer an older version of this model. Devices finish what they have begun."""
    model, group = document["model_name"], THING_GROUP_ARN.rpartition("/")[2]
    prefix = f"{model}-"[:47]
    listed = iot.list_jobs(status="IN_PROGRESS", targetSelection="CONTINUOUS", thingGroupName=group, maxResults=250)
    made = {each["jobId"]: each["createdAt"] for each in listed["jobs"] if each["status"] == "IN_PROGRESS"}
    if job_id not in made:  # an event that comes again, after ours has itself given way
        return
    others = [each for each in made if each.startswith(prefix) and each != job_id and made[each] <= made[job_id]]
    for other in others[:MAX_SUPERSEDED]:
        name, _, version = iot.describe_job(jobId=other)["job"].get("description", "").partition(" ")
        newer = version_key(version) > version_key(document["model_version"])
        if name != model or (newer and document.get("allow_downgrade") is not True):
            continue
        try:
            iot.cancel_job(
                jobId=other, reasonCode="superseded", comment=f"{model} {document['model_version']}: {job_id}"
            )
        except iot.exceptions.InvalidRequestException:  # it has ended meanwhile
            continue
        logger.info("job superseded", extra={"job": other, "by": job_id})


def version_key(version: str) -> tuple[list[int], bool, str]:
    """Orders versions well enough to tell an earlier one: its numbers, and a pre-release before its release."""
    numbers, _, rest = version.removeprefix("v").partition("+")[0].partition("-")
    return [int(part) for part in numbers.split(".") if part.isdecimal()], not rest, rest

"""What an AWS call needs of IAM, and whether policy statements grant it.

Covers the calls that the suite's handlers and builds make. Runs inside their processes, so it imports nothing heavy.
"""

import json
import re
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

Need = tuple[str, str]  # action, resource ARN; "*" where AWS knows no resource

_PREFIXES = {
    "sagemaker-runtime": "sagemaker",
    "greengrassv2": "greengrass",
    "codebuild": "codebuild",
    "iot-data": "iot",
    "iot-jobs-data": "iot",
}


def needs(service: str, operation: str, parameters: dict[str, Any], region: str, account: str) -> list[Need]:
    """Actions and resources that the caller must be allowed, for boto3's service and operation names."""
    at = f"{region}:{account}"
    special = _SPECIAL.get(f"{service}:{operation}")
    if special is not None:
        return special(parameters, at)
    return [(f"{_PREFIXES.get(service, service)}:{operation}", _ARNS.get(service, _any)(parameters, at))]


def allowed(statements: Iterable[dict[str, Any]], need: Need, context: dict[str, str]) -> bool:
    """A Deny that matches wins, then any Allow; `context` holds condition keys such as cloudwatch:namespace.

    A resource may name such a key as a variable, `${credentials-iot:ThingName}`: without a value it fits nothing.
    """
    effects = {s["Effect"] for s in statements if _covers(s, need, context) and _holds(s.get("Condition", {}), context)}
    return effects == {"Allow"}


def condition_keys(service: str, parameters: dict[str, Any]) -> dict[str, str]:
    """The condition keys of a call that the template's policies use."""
    keys = {
        "cloudwatch": ("cloudwatch:namespace", "Namespace"),
        "s3": ("s3:prefix", "Prefix"),
        "sagemaker": ("sagemaker:ModelApprovalStatus", "ModelApprovalStatus"),
    }
    name, parameter = keys.get(service, ("", ""))
    return {name: str(parameters[parameter])} if parameter in parameters else {}


def _covers(statement: dict[str, Any], need: Need, context: dict[str, str]) -> bool:
    action, resource = need
    return any(_like(p.lower(), action.lower()) for p in _list(statement["Action"])) and any(
        _fits(p, resource, context) for p in _list(statement["Resource"])
    )


def _fits(pattern: str, resource: str, context: dict[str, str]) -> bool:
    """A variable's value is text: a wildcard in it stands for itself."""
    parts = re.split(r"\$\{([^}]+)\}", pattern)
    if any(name not in context for name in parts[1::2]):
        return False
    regex = "".join(re.escape(context[part]) if i % 2 else _regex(part) for i, part in enumerate(parts))
    return re.fullmatch(regex, resource, re.DOTALL) is not None


def _holds(condition: dict[str, dict[str, Any]], context: dict[str, str]) -> bool:
    for operator, tests in condition.items():
        if operator not in ("StringEquals", "StringLike", "StringNotEquals", "ForAnyValue:StringEquals", "Null"):
            raise ValueError(f"condition {operator} is not implemented here")
        for key, patterns in tests.items():
            if operator == "Null":
                if (key in context) == (patterns == "true"):
                    return False
                continue
            if key == "iam:PassedToService":
                continue  # who a role is passed to is not part of the call
            equal = any(_like(pattern, context.get(key, "\0")) for pattern in _list(patterns))
            if equal == (operator == "StringNotEquals"):  # a key that is missing equals nothing
                return False
    return True


def _like(pattern: str, value: str) -> bool:
    return re.fullmatch(_regex(pattern), value, re.DOTALL) is not None


@cache
def _regex(pattern: str) -> str:
    return "".join(".*" if c == "*" else "." if c == "?" else re.escape(c) for c in pattern)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _any(_: dict[str, Any], at: str) -> str:
    return "*"


def _object(p: dict[str, Any], at: str) -> str:
    return f"arn:aws:s3:::{p['Bucket']}/{p['Key']}"


def _get_object(p: dict[str, Any], at: str) -> list[Need]:
    # Without s3:ListBucket S3 answers 403 instead of 404 for a key that is missing.
    action = "s3:GetObjectVersion" if "VersionId" in p else "s3:GetObject"
    return [(action, _object(p, at)), ("s3:ListBucket", f"arn:aws:s3:::{p['Bucket']}")]


def _detect_faces(p: dict[str, Any], at: str) -> list[Need]:
    image = p["Image"].get("S3Object")
    needed = [("rekognition:DetectFaces", "*")]
    if image:  # Rekognition reads the object as the caller
        needed.append(("s3:GetObject", _object({"Bucket": image["Bucket"], "Key": image["Name"]}, at)))
    return needed


def _create_job(p: dict[str, Any], at: str) -> list[Need]:
    needed = [("iot:CreateJob", arn) for arn in (f"arn:aws:iot:{at}:job/{p['jobId']}", *p["targets"])]
    role = p.get("presignedUrlConfig", {}).get("roleArn")
    return [*needed, ("iam:PassRole", role)] if role else needed


def _create_deployment(p: dict[str, Any], at: str) -> list[Need]:
    # Greengrass makes an IoT job in the caller's name; AWS documents these as dependent actions.
    group = [("iot:CreateJob", p["targetArn"]), ("iot:DescribeThingGroup", p["targetArn"])]
    jobs = [
        (f"iot:{action}", f"arn:aws:iot:{at}:job/greengrass") for action in ("CancelJob", "DescribeJob", "UpdateJob")
    ]
    actions = ("DeleteThingShadow", "DescribeThing", "GetThingShadow", "UpdateThingShadow")
    things = [(f"iot:{action}", f"arn:aws:iot:{at}:thing/edgeml-any") for action in actions]
    tag = [("greengrass:TagResource", f"arn:aws:greengrass:{at}:deployments:any")] if p.get("tags") else []
    return [("greengrass:CreateDeployment", "*"), *tag, *group, *jobs, *things]


def _component_of_recipe(p: dict[str, Any], at: str) -> list[Need]:
    recipe = json.loads(p["inlineRecipe"])
    artifacts = [each["Uri"] for manifest in recipe["Manifests"] for each in manifest.get("Artifacts", [])]
    return [
        ("greengrass:CreateComponentVersion", f"arn:aws:greengrass:{at}:components:{recipe['ComponentName']}"),
        # Greengrass makes their digests in the caller's name.
        *(("s3:GetObject", uri.replace("s3://", "arn:aws:s3:::")) for uri in artifacts if uri.startswith("s3://")),
    ]


def _model_package(p: dict[str, Any], at: str) -> str:
    if "ModelPackageGroupName" in p:
        return f"arn:aws:sagemaker:{at}:model-package/{p['ModelPackageGroupName']}/1"
    return str(p.get("ModelPackageName") or p["ModelPackageArn"])  # ARNs


def _iot_arn(p: dict[str, Any], at: str) -> str:
    kinds = {"jobId": "job", "thingGroupName": "thinggroup", "thingName": "thing"}
    named = next((key for key in kinds if key in p and "status" not in p), None)  # ListJobs filters, it names nothing
    return f"arn:aws:iot:{at}:{kinds[named]}/{p[named]}" if named else "*"


def _log_arn(p: dict[str, Any], at: str) -> str:
    """A group's own ARN does not do: policies need the one with `:*` at the end for actions on groups as well."""
    return f"arn:aws:logs:{at}:log-group:{p['logGroupName']}:log-stream:{p.get('logStreamName', '')}"


_SPECIAL: dict[str, Callable[[dict[str, Any], str], list[Need]]] = {
    "s3:HeadObject": _get_object,
    "s3:GetObject": _get_object,
    "s3:PutObject": lambda p, at: [("s3:PutObject", _object(p, at))],
    "s3:ListObjectsV2": lambda p, at: [("s3:ListBucket", f"arn:aws:s3:::{p['Bucket']}")],
    "iot:CreateJob": _create_job,
    "greengrassv2:CreateComponentVersion": _component_of_recipe,
    "greengrassv2:CreateDeployment": _create_deployment,
    "sagemaker:ListModelPackageGroups": lambda p, at: [("sagemaker:ListModelPackageGroups", "*")],
    "sts:GetCallerIdentity": lambda p, at: [],  # everybody may
    "lambda:Invoke": lambda p, at: [("lambda:InvokeFunction", f"arn:aws:lambda:{at}:function:{p['FunctionName']}")],
    "rekognition:DetectFaces": _detect_faces,
}
_ARNS: dict[str, Callable[[dict[str, Any], str], str]] = {
    "dynamodb": lambda p, at: f"arn:aws:dynamodb:{at}:table/{p['TableName']}",
    "greengrassv2": lambda p, at: p.get("arn", "*"),
    "iot": _iot_arn,
    "firehose": lambda p, at: f"arn:aws:firehose:{at}:deliverystream/{p['DeliveryStreamName']}",
    "logs": _log_arn,
    "sqs": lambda p, at: f"arn:aws:sqs:{at}:{p['QueueUrl'].rpartition('/')[2]}",
    "secretsmanager": lambda p, at: f"arn:aws:secretsmanager:{at}:secret:{p['SecretId']}-Random",
    "sagemaker": _model_package,
    "sagemaker-runtime": lambda p, at: f"arn:aws:sagemaker:{at}:endpoint/{p['EndpointName']}",
}

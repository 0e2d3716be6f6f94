"""A SAM template as CloudFormation would see it: expanded by AWS's own translator, every reference resolved."""

import contextlib
import hashlib
import json
import re
import tempfile
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import boto3

from localdev.cloud.aws import ACCOUNT, REGION

ROOT = Path(__file__).resolve().parents[3]
CACHE = ROOT / ".cache" / "templates"
PSEUDO = {
    "AWS::AccountId": ACCOUNT,
    "AWS::Partition": "aws",
    "AWS::Region": REGION,
    "AWS::StackName": "local",
    "AWS::StackId": f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/local/0",
    "AWS::URLSuffix": "amazonaws.com",
    "AWS::NoValue": None,
}
NAMES = {  # the property that names a resource; a resource without it is called after its logical id
    "AWS::CloudWatch::Dashboard": "DashboardName",
    "AWS::CodeBuild::Project": "Name",
    "AWS::DynamoDB::Table": "TableName",
    "AWS::IAM::ManagedPolicy": "ManagedPolicyName",
    "AWS::IoT::Policy": "PolicyName",
    "AWS::IoT::RoleAlias": "RoleAlias",
    "AWS::IoT::ThingGroup": "ThingGroupName",
    "AWS::KinesisFirehose::DeliveryStream": "DeliveryStreamName",
    "AWS::Logs::LogGroup": "LogGroupName",
    "AWS::Logs::LogStream": "LogStreamName",
    "AWS::S3::Bucket": "BucketName",
    "AWS::SageMaker::ModelPackageGroup": "ModelPackageGroupName",
}
ARNS = {
    "AWS::CodeBuild::Project": f"arn:aws:codebuild:{REGION}:{ACCOUNT}:project/{{}}",
    "AWS::DynamoDB::Table": f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/{{}}",
    "AWS::Events::Rule": f"arn:aws:events:{REGION}:{ACCOUNT}:rule/{{}}",
    "AWS::IAM::ManagedPolicy": f"arn:aws:iam::{ACCOUNT}:policy/{{}}",
    "AWS::IAM::Role": f"arn:aws:iam::{ACCOUNT}:role/{{}}",
    "AWS::IoT::Policy": f"arn:aws:iot:{REGION}:{ACCOUNT}:policy/{{}}",
    "AWS::IoT::RoleAlias": f"arn:aws:iot:{REGION}:{ACCOUNT}:rolealias/{{}}",
    "AWS::IoT::ThingGroup": f"arn:aws:iot:{REGION}:{ACCOUNT}:thinggroup/{{}}",
    "AWS::IoT::TopicRule": f"arn:aws:iot:{REGION}:{ACCOUNT}:rule/{{}}",
    "AWS::KinesisFirehose::DeliveryStream": f"arn:aws:firehose:{REGION}:{ACCOUNT}:deliverystream/{{}}",
    "AWS::Lambda::Function": f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{{}}",
    "AWS::Logs::LogGroup": f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:{{}}:*",
    "AWS::S3::Bucket": "arn:aws:s3:::{}",
    "AWS::SageMaker::ModelPackageGroup": f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:model-package-group/{{}}",
    "AWS::SNS::Topic": f"arn:aws:sns:{REGION}:{ACCOUNT}:{{}}",
    "AWS::SQS::Queue": f"arn:aws:sqs:{REGION}:{ACCOUNT}:{{}}",
}


class TemplateError(ValueError):
    """The template cannot be expanded, or refers to something this stand-in does not know."""


@dataclass(frozen=True)
class Resource:
    id: str
    type: str
    name: str
    properties: dict[str, Any]  # nothing unresolved

    @property
    def arn(self) -> str:
        return ARNS[self.type].format(self.name)


class Stack:
    """The resources of a template for given parameters; those whose condition is false are absent."""

    def __init__(self, template: Path, parameters: dict[str, str] | None = None) -> None:
        self.folder = template.parent
        self.raw = _expand(template.name, template.read_text(encoding="utf-8"))
        defaults = {name: spec.get("Default") for name, spec in self.raw.get("Parameters", {}).items()}
        unknown = set(parameters or {}) - set(defaults)
        if unknown:
            raise TemplateError(f"{template.name} has no parameters {', '.join(sorted(unknown))}")
        self.parameters = {**defaults, **(parameters or {})}
        self.resources = {
            name: Resource(name, spec["Type"], self._name(name), self._resolve(spec.get("Properties", {})))
            for name, spec in self.raw["Resources"].items()
            if "Condition" not in spec or self._condition(spec["Condition"])
        }
        self.outputs = {name: self._resolve(spec["Value"]) for name, spec in self.raw.get("Outputs", {}).items()}

    def of_type(self, kind: str) -> list[Resource]:
        return [resource for resource in self.resources.values() if resource.type == kind]

    def by_arn(self, arn: str) -> Resource:
        """Raises TemplateError for an ARN that is none of this stack's."""
        for resource in self.resources.values():
            if resource.type in ARNS and resource.arn == arn:
                return resource
        raise TemplateError(f"{arn} is not a resource of this template")

    def statements(self, role_arn: str) -> list[dict[str, Any]]:
        """What a role of this template is granted and denied."""
        role = self.by_arn(role_arn)
        policies = list(role.properties.get("Policies", []))
        for kind in ("AWS::IAM::ManagedPolicy", "AWS::IAM::Policy"):
            policies += [p.properties for p in self.of_type(kind) if role.name in p.properties.get("Roles", [])]
        return [statement for policy in policies for statement in policy["PolicyDocument"]["Statement"]]

    def _name(self, logical_id: str) -> str:
        spec = self.raw["Resources"][logical_id]
        given = spec.get("Properties", {}).get(NAMES.get(spec["Type"], ""))
        return str(self._resolve(given)) if given else logical_id

    def _condition(self, name: str) -> bool:
        return bool(self._resolve(self.raw["Conditions"][name]))

    def _resolve(self, node: Any) -> Any:
        if isinstance(node, list):
            return [item for item in map(self._resolve, node) if item is not None]
        if not isinstance(node, dict):
            return node
        if len(node) == 1:
            ((key, value),) = node.items()
            if key == "Ref" or key.startswith("Fn::"):
                return self._function(key.removeprefix("Fn::"), value)
        resolved = {key: self._resolve(value) for key, value in node.items()}
        return {key: value for key, value in resolved.items() if value is not None}

    def _function(self, name: str, value: Any) -> Any:
        match name:
            case "Ref":
                return self._ref(value)
            case "GetAtt":
                logical_id, attribute = value.split(".", 1) if isinstance(value, str) else value
                return self._attribute(logical_id, attribute)
            case "Sub":
                text, variables = (value, {}) if isinstance(value, str) else value
                return self._sub(text, {key: self._resolve(item) for key, item in variables.items()})
            case "Join":
                return value[0].join(str(item) for item in self._resolve(value[1]))
            case "FindInMap":
                table, first, second = self._resolve(value)
                return self.raw["Mappings"][table][first][second]
            case "If":
                return self._resolve(value[1] if self._condition(value[0]) else value[2])
            case "Equals":
                left, right = self._resolve(value)
                return str(left) == str(right)
            case "Not":
                return not self._resolve(value[0])
        raise TemplateError(f"Fn::{name} is not implemented here")

    def _ref(self, name: str) -> Any:
        if name in PSEUDO:
            return PSEUDO[name]
        if name in self.parameters:
            return self.parameters[name]
        kind = self.raw["Resources"].get(name, {}).get("Type")
        if kind is None:
            raise TemplateError(f"Ref {name}: no such parameter or resource")
        if kind in ("AWS::SNS::Topic", "AWS::IAM::ManagedPolicy"):
            return self._attribute(name, "Arn")
        if kind == "AWS::SQS::Queue":
            return f"https://sqs.{REGION}.amazonaws.com/{ACCOUNT}/{self._name(name)}"
        return self._name(name)

    def _attribute(self, logical_id: str, attribute: str) -> str:
        kind = self.raw["Resources"].get(logical_id, {}).get("Type")
        if attribute.endswith("Arn") and kind in ARNS:
            return ARNS[kind].format(self._name(logical_id))
        if attribute.endswith("Name") and kind is not None:
            return self._name(logical_id)
        raise TemplateError(f"GetAtt {logical_id}.{attribute} is not known here")

    def _sub(self, text: str, variables: dict[str, Any]) -> str:
        def value(match: re.Match[str]) -> str:
            name = match[1]
            if name.startswith("!"):
                return f"${{{name[1:]}}}"
            if name in variables:
                return str(variables[name])
            return str(self._function("GetAtt" if "." in name else "Ref", name))

        return re.sub(r"\$\{([^}]+)\}", value, text)


@cache
def _expand(name: str, text: str) -> dict[str, Any]:
    """Takes the better part of a second, once for all processes; what comes out is for reading only."""
    made_of = (text, metadata.version("aws-sam-translator"), Path(__file__).read_text(encoding="utf-8"))
    kept = CACHE / f"{hashlib.sha256(repr(made_of).encode()).hexdigest()}.json"
    with contextlib.suppress(OSError, ValueError):
        return dict(json.loads(kept.read_bytes()))
    expanded = _translated(name, text)
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=CACHE, delete=False, encoding="utf-8") as file:
        json.dump(expanded, file)
    Path(file.name).replace(kept)
    return expanded


def _translated(name: str, text: str) -> dict[str, Any]:
    from samtranslator.model.exceptions import InvalidDocumentException
    from samtranslator.parser.parser import Parser
    from samtranslator.translator.translator import Translator
    from samtranslator.yaml_helper import yaml_parse

    document = yaml_parse(text)
    for spec in document["Resources"].values():
        if spec["Type"] == "AWS::Serverless::Function":  # the translator insists on S3; the folder is read back from it
            spec["Properties"]["CodeUri"] = f"s3://local/{spec['Properties']['CodeUri']}"
    session = boto3.Session(region_name=REGION)
    try:
        expanded = Translator({}, Parser(), boto_session=session).translate(document, parameter_values={})
    except InvalidDocumentException as error:
        raise TemplateError(f"{name}: {error.message}") from error
    return dict(expanded)

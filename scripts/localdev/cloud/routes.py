"""From what happened in AWS to the functions the template wants told: S3, SNS and EventBridge."""

import json
import logging
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

from localdev.cloud import events, iam
from localdev.cloud.aws import LocalAws, Request, Response
from localdev.cloud.template import Stack

log = logging.getLogger(__name__)

Invoke = Callable[[str, dict[str, Any]], None]  # function ARN, event


class Routes:
    """Watches a LocalAws. `invoke` queues an event for a function, if the template lets that service invoke it."""

    def __init__(self, stack: Stack, aws: LocalAws, invoke: Invoke) -> None:
        self._stack = stack
        self._aws = aws
        self._invoke = invoke
        self._buckets = {
            r.name: r.properties.get("NotificationConfiguration", {}).get("LambdaConfigurations", [])
            for r in stack.of_type("AWS::S3::Bucket")
        }
        self._rules = [r.properties for r in stack.of_type("AWS::Events::Rule")]
        self._subscriptions = [r.properties for r in stack.of_type("AWS::SNS::Subscription")]

    def observe(self, request: Request, response: Response) -> None:
        match request.service, request.operation:
            case "s3", _:
                self._s3(request, response)
            case "sns", _:
                self._sns(request)
            case "events", "PutEvents":
                for entry in json.loads(request.body)["Entries"]:
                    detail = json.loads(entry.get("Detail", "{}"))
                    event = events.eventbridge(entry["Source"], entry["DetailType"], detail, entry.get("Resources", []))
                    self.event(event)
            case "sagemaker", "UpdateModelPackage":
                self._model_package(json.loads(request.body)["ModelPackageArn"])

    def event(self, event: dict[str, Any]) -> None:
        """An EventBridge event goes to the targets of every rule that it matches."""
        for rule in self._rules:
            if "EventPattern" not in rule or not events.matches(rule["EventPattern"], event):
                continue
            for target in rule["Targets"]:
                self._target(target, events.transformed(target, event))

    def _target(self, target: dict[str, Any], payload: Any) -> None:
        arn = target["Arn"]
        resource = self._stack.by_arn(arn)
        if resource.type == "AWS::Lambda::Function":
            self._to_function(arn, "events.amazonaws.com", payload)
        elif resource.type == "AWS::CodeBuild::Project":
            if iam.allowed(self._stack.statements(target["RoleArn"]), ("codebuild:StartBuild", arn), {}):
                self._aws.client("codebuild").start_build(projectName=resource.name, **payload)
            else:
                log.error("the rule's role does not allow codebuild:StartBuild on %s", arn)
        else:
            raise ValueError(f"an EventBridge target of type {resource.type} is not implemented here")

    def _to_function(self, arn: str, principal: str, event: dict[str, Any]) -> None:
        if may_invoke(self._stack, arn, principal):
            self._invoke(arn, event)
        else:
            log.error("%s may not invoke %s: no AWS::Lambda::Permission in the template", principal, arn)

    def _s3(self, request: Request, response: Response) -> None:
        bucket, _, key = request.path.removeprefix("/").partition("/")
        if not key or bucket not in self._buckets:
            return
        if request.method == "PUT" and not {"acl", "tagging", "uploadId", "retention", "legal-hold"} & set(
            request.query
        ):
            name = "ObjectCreated:Copy" if "x-amz-copy-source" in request.headers else "ObjectCreated:Put"
        elif request.method == "POST" and "uploadId" in request.query:
            name = "ObjectCreated:CompleteMultipartUpload"
        else:
            return
        headers = {header.lower(): value for header, value in response.headers.items()}
        size = int(request.headers.get("x-amz-decoded-content-length") or len(request.body))
        etag, version = headers.get("etag", "").strip('"'), headers.get("x-amz-version-id", "")
        for configuration in self._buckets[bucket]:
            if _wanted(configuration, f"s3:{name}", key):
                event = events.s3(bucket, key, name, size, etag, "" if version == "null" else version)
                self._to_function(configuration["Function"], "s3.amazonaws.com", event)

    def _sns(self, request: Request) -> None:
        form = {name: values[0] for name, values in parse_qs(request.body.decode(), keep_blank_values=True).items()}
        if form.get("Action") == "Publish":
            prefixes = [""]
        elif form.get("Action") == "PublishBatch":
            prefixes = sorted(
                {n[: -len("Message")] for n in form if n.startswith("PublishBatch") and n.endswith(".Message")}
            )
        else:
            return
        for prefix in prefixes:
            event = events.sns(form["TopicArn"], form[f"{prefix}Message"], form.get(f"{prefix}Subject"), {})
            for subscription in self._subscriptions:
                if subscription["Protocol"] == "lambda" and subscription["TopicArn"] == form["TopicArn"]:
                    self._to_function(subscription["Endpoint"], "sns.amazonaws.com", event)

    def _model_package(self, arn: str) -> None:
        package = self._aws.client("sagemaker").describe_model_package(ModelPackageName=arn)
        keys = ("ModelPackageArn", "ModelPackageGroupName", "ModelPackageVersion", "ModelApprovalStatus")
        detail = {key: package[key] for key in keys if key in package}
        self.event(events.eventbridge("aws.sagemaker", "SageMaker Model Package State Change", detail, [arn]))


def may_invoke(stack: Stack, function_arn: str, principal: str) -> bool:
    """Whether the template has a permission for a service to invoke a function."""
    names = (function_arn, function_arn.rpartition(":")[2])
    return any(
        permission.properties["Principal"] == principal and permission.properties["FunctionName"] in names
        for permission in stack.of_type("AWS::Lambda::Permission")
    )


def _wanted(configuration: dict[str, Any], name: str, key: str) -> bool:
    event = configuration["Event"]
    if name != event and not (event.endswith("*") and name.startswith(event[:-1])):
        return False
    rules = configuration.get("Filter", {}).get("S3Key", {}).get("Rules", [])
    return all(
        key.startswith(rule["Value"]) if rule["Name"].lower() == "prefix" else key.endswith(rule["Value"])
        for rule in rules
    )

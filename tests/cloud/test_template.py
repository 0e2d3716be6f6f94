"""The template as data: what AWS will be told to make."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from samtranslator.yaml_helper import yaml_parse

from cloud_support import sample
from localdev.cloud import events, iam
from localdev.cloud.cloud import TEMPLATE
from localdev.cloud.template import Resource, Stack
from source_support import parsed, variables

FUNCTIONS = TEMPLATE.parent / "functions"

RESERVED = "ReservedConcurrentExecutions"


def functions(stack: Stack) -> list[Resource]:
    return stack.of_type("AWS::Lambda::Function")


def test_every_handler_is_a_function_on_todays_runtime(stack: Stack) -> None:
    folders = {path.parent.name for path in FUNCTIONS.glob("*/app.py")}
    assert {Path(f.properties["Code"]["S3Key"]).name for f in functions(stack)} == folders
    for function in functions(stack):
        folder = stack.folder / function.properties["Code"]["S3Key"]
        assert function.properties["Runtime"] == "python3.13"
        assert function.properties["Handler"] == "app.handler"
        assert "aws-lambda-powertools==" in (folder / "requirements.txt").read_text()


def test_functions_get_every_variable_that_their_code_demands(stack: Stack) -> None:
    for function in functions(stack):
        demanded, read = variables(parsed(stack.folder / function.properties["Code"]["S3Key"] / "app.py"))
        given = set(function.properties["Environment"]["Variables"])
        assert demanded <= given
        assert {name for name in given if not name.startswith("POWERTOOLS_")} <= demanded | read


def test_asynchronous_functions_keep_what_they_fail_on(stack: Stack) -> None:
    kept = {r.properties["FunctionName"]: r.properties for r in stack.of_type("AWS::Lambda::EventInvokeConfig")}
    asynchronous = {f.name for f in functions(stack)} - {"LiveInference"}
    assert set(kept) == asynchronous
    for configuration in kept.values():
        destination = configuration["DestinationConfig"]["OnFailure"]["Destination"]
        assert stack.by_arn(destination).type == "AWS::SQS::Queue"


def test_events_reach_their_handlers(stack: Stack) -> None:
    (faces,) = stack.resources["DataBucket"].properties["NotificationConfiguration"]["LambdaConfigurations"]
    assert faces["Function"] == stack.resources["RekognizeEmotions"].arn
    assert faces["Event"] == "s3:ObjectCreated:*"
    assert faces["Filter"]["S3Key"]["Rules"] == [{"Name": "prefix", "Value": "faces/"}]
    subscription = stack.resources["CollectSampleSamplePublished"].properties
    assert subscription["TopicArn"] == stack.outputs["SampleTopicArn"]
    (documents,) = stack.resources["ModelBucket"].properties["NotificationConfiguration"]["LambdaConfigurations"]
    assert documents["Function"] == stack.resources["CreateIotJob"].arn
    assert documents["Filter"]["S3Key"]["Rules"] == [{"Name": "suffix", "Value": ".json"}]
    approved = stack.resources["ModelApprovedRule"].properties
    assert events.matches(approved["EventPattern"], sample("model_package_approved"))
    rejected = sample("model_package_approved")
    rejected["detail"]["ModelApprovalStatus"] = "Rejected"
    assert not events.matches(approved["EventPattern"], rejected)


def test_components_go_where_gdk_puts_them_and_devices_look(stack: Stack) -> None:
    for path in sorted((TEMPLATE.parent.parent / "gdk-config").glob("*.json")):
        (component,) = json.loads(path.read_text())["component"].values()
        made = f"{component['publish']['bucket']}-us-east-1-123456789012"  # GDK: bucket, region, account
        assert made == stack.outputs["ComponentBucketName"], path.name
    (reads, locates) = stack.resources["TokenExchangeAccess"].properties["PolicyDocument"]["Statement"]
    named = [stack.resources[name].properties["BucketName"] for name in ("ArtifactBucket", "ComponentBucket")]
    both = [f"arn:aws:s3:::{name}" for name in named]
    assert (reads["Resource"], locates["Resource"]) == ([f"{arn}/*" for arn in both], both)


@pytest.mark.parametrize("region", ["ap-southeast-3", "us-gov-west-1", "cn-northwest-1"])
def test_bucket_names_have_at_most_63_characters(region: str) -> None:
    longest = "p" * 20
    for bucket in Stack(TEMPLATE, {"Project": longest}).of_type("AWS::S3::Bucket"):
        assert len(bucket.properties["BucketName"].replace("us-east-1", region)) <= 63, bucket.id


def test_an_account_of_today_can_hold_the_stack(stack: Stack) -> None:
    """New accounts have room for ten invocations and one build at a time, and refuse reservations and higher limits."""
    assert not any(RESERVED in f.properties for f in functions(stack))
    assert "ConcurrentBuildLimit" not in stack.resources["ExportModelProject"].properties
    reserved = {f.id for f in functions(Stack(TEMPLATE, {"ReserveConcurrency": "true"})) if RESERVED in f.properties}
    assert reserved == {"UpdateDeployment"}


def test_the_face_table_is_what_the_handler_writes_to(stack: Stack) -> None:
    table = stack.resources["FacesTable"]
    assert table.name == "rekognize-faces"
    assert table.properties["KeySchema"] == [{"AttributeName": "s3key", "KeyType": "HASH"}]


def test_the_api_wants_a_key_and_is_throttled(stack: Stack) -> None:
    operation = stack.resources["LiveApi"].properties["Body"]["paths"]["/liveinference"]["get"]
    assert operation["security"] == [{"api_key": []}]
    (plan,) = stack.of_type("AWS::ApiGateway::UsagePlan")
    assert plan.properties["Throttle"]["RateLimit"] == 20
    assert plan.properties["Quota"] == {"Limit": 1_000_000, "Period": "DAY"}
    (stage,) = stack.of_type("AWS::ApiGateway::Stage")
    assert stage.properties["MethodSettings"][0]["ThrottlingRateLimit"] == 20


def test_a_browser_may_read_answers_of_the_api_also_those_without_the_function() -> None:
    api = Stack(TEMPLATE, {"AllowOrigin": "https://a.example"}).resources["LiveApi"].properties["Body"]
    asked_first = api["paths"]["/liveinference"]["options"]["x-amazon-apigateway-integration"]["responses"]["default"]
    assert asked_first["responseParameters"] == {
        "method.response.header.Access-Control-Allow-Origin": "'https://a.example'",
        "method.response.header.Access-Control-Allow-Methods": "'GET,OPTIONS'",
        "method.response.header.Access-Control-Allow-Headers": "'x-api-key'",
        "method.response.header.Access-Control-Max-Age": "'600'",
    }
    for kind in ("DEFAULT_4XX", "DEFAULT_5XX"):  # no key, too many requests
        headers = api["x-amazon-apigateway-gateway-responses"][kind]["responseParameters"]
        assert headers == {"gatewayresponse.header.Access-Control-Allow-Origin": "'https://a.example'"}


def test_a_second_stack_in_the_account_shares_no_name_with_the_first(stack: Stack) -> None:
    names = {"Project": "plant", "ThingPrefix": "plant-", "ThingGroupName": "plant", "ModelPackageGroupName": "plant"}
    second = Stack(TEMPLATE, {**names, "MetricsPrefix": "Plant", "MetricNamespace": "Plant/Emotions"})
    kinds = {"BucketName", "TableName", "LogGroupName", "RoleAlias", "PolicyName", "ThingGroupName", "DashboardName"}
    kinds |= {"ModelPackageGroupName", "ManagedPolicyName", "AlarmName", "RoleName", "RuleName"}

    def taken(of: Stack) -> set[str]:
        found = {str(each.properties[kind]) for each in of.resources.values() for kind in kinds & set(each.properties)}
        return found - {"TokenExchangeRoleAccess"}  # of a role whose name CloudFormation makes

    assert taken(stack) & taken(second) == set()
    for alarm in second.of_type("AWS::CloudWatch::Alarm"):
        assert "EdgeML/" not in json.dumps(alarm.properties), alarm.id
    for dashboard in second.of_type("AWS::CloudWatch::Dashboard"):
        assert "EdgeML/" not in dashboard.properties["DashboardBody"], dashboard.id


def test_services_take_roles_for_this_account_alone(stack: Stack) -> None:
    for role in stack.of_type("AWS::IAM::Role"):
        for statement in role.properties["AssumeRolePolicyDocument"]["Statement"]:
            if "Service" in statement["Principal"]:
                assert statement["Condition"]["StringEquals"]["aws:SourceAccount"] == "123456789012", role.id


def test_the_api_has_one_stage() -> None:
    assert yaml_parse(TEMPLATE.read_text(encoding="utf-8"))["Globals"]["Api"]["OpenApiVersion"] == "3.0.1"
    assert [stage.properties["StageName"] for stage in Stack(TEMPLATE).of_type("AWS::ApiGateway::Stage")] == ["live"]


def test_no_policy_allows_every_action_of_a_service(stack: Stack) -> None:
    for resource in [*stack.of_type("AWS::IAM::Role"), *stack.of_type("AWS::IAM::ManagedPolicy")]:
        policies = resource.properties.get("Policies", [resource.properties])
        for policy in policies:
            for statement in policy["PolicyDocument"]["Statement"]:
                if statement["Effect"] == "Allow":
                    assert "*" not in json.dumps(statement["Action"]), resource.id


def test_the_export_build_gets_what_its_script_reads(stack: Stack) -> None:
    project = stack.resources["ExportModelProject"].properties
    variables = {v["Name"]: v["Value"] for v in project["Environment"]["EnvironmentVariables"]}
    assert variables.pop("MAX_LOSS") == 0.01
    assert set(variables) == {
        "BUCKET",
        "COMPONENT_BUCKET",
        "MODE",
        "SIGNING_KEY_SECRET",
        "THING_GROUP",
        "UPDATE_FUNCTION",
    }
    assert variables["UPDATE_FUNCTION"] == stack.resources["UpdateDeployment"].name
    need = ("secretsmanager:GetSecretValue", "arn:aws:secretsmanager:us-east-1:123456789012:secret:-a1B2c3")
    assert not iam.allowed(stack.statements(project["ServiceRole"]), need, {}), "without a key there is no secret"


def test_studio_is_made_only_when_asked_for(stack: Stack) -> None:
    assert "StudioDomain" not in stack.resources
    full = Stack(TEMPLATE, {"CreateStudioDomain": "true", "StudioVpcId": "vpc-1"})
    domain = full.resources["StudioDomain"].properties
    assert domain["VpcId"] == "vpc-1"
    assert domain["DefaultUserSettings"] == {"ExecutionRole": full.resources["DataScienceRole"].arn}


def test_outputs_lead_where_they_say(stack: Stack) -> None:
    dashboards = "https://console.aws.amazon.com/cloudwatch/home?region=us-east-1#dashboards:name=edgeml"
    bucket, artifacts = "edgeml-{}-123456789012-us-east-1".format, "edgeml-components-us-east-1-123456789012"
    assert stack.outputs == {
        "EmotionsDashboardUrl": f"{dashboards}-emotions;autoRefresh=10",
        "TurbineDashboardUrl": f"{dashboards}-turbine;autoRefresh=60",
        "LiveInferenceDashboardUrl": f"{dashboards}-live-inference;autoRefresh=60",
        "LiveInferenceUrl": "https://LiveApi.execute-api.us-east-1.amazonaws.com/live/liveinference",
        "DataBucketName": bucket("data"),
        "ResultBucketName": bucket("results"),
        "ModelBucketName": bucket("models"),
        "ComponentBucketName": artifacts,
        "KeptWhenDeleted": " ".join(
            [*map(bucket, ("data", "results", "models")), artifacts, bucket("components"), "edgeml-models"]
        ),
        "SampleTopicArn": "arn:aws:sns:us-east-1:123456789012:SampleTopic",
        "ThingGroupArn": "arn:aws:iot:us-east-1:123456789012:thinggroup/edgeml-devices",
        "TokenExchangeRoleAliasName": "edgeml-token-exchange",
        "TokenExchangeRoleName": "TokenExchangeRole",
        "DevicePolicyName": "edgeml-device",
        "TokenExchangePolicyName": "GreengrassTESCertificatePolicyedgeml-token-exchange",
        "LookPolicyArn": "arn:aws:iam::123456789012:policy/LookPolicy",
        "ProvisioningPolicyArn": "arn:aws:iam::123456789012:policy/ProvisioningPolicy",
    }
    assert {name for name in stack.resources if name.endswith("Dashboard")} == {
        output.removesuffix("Url") for output in stack.outputs if output.endswith("DashboardUrl")
    }
    assert all(len(spec["Description"]) > 10 for spec in stack.raw["Outputs"].values())


def test_parameters_say_what_they_are_for(stack: Stack) -> None:
    raw = stack.raw["Parameters"]
    assert all(len(spec["Description"]) > 20 and "Default" in spec for spec in raw.values())
    labelled = [
        p
        for group in stack.raw["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
        for p in group["Parameters"]
    ]
    assert sorted(labelled) == sorted(raw)


def test_generated_parts_are_up_to_date() -> None:
    generate = TEMPLATE.parent / "generate.py"
    done = subprocess.run([sys.executable, str(generate), "--check"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")

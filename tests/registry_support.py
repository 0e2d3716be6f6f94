"""What data scientists and engineers do with models in a local cloud."""

import json
from pathlib import Path
from typing import Any

from localdev.cloud import LocalCloud
from ota_support import Signer, trained

SIGNING_KEY = "model-signing-key"  # a secret of the cloud, by name


class ModelRegistry:
    """What data scientists and engineers do with models in a local cloud."""

    def __init__(self, cloud: LocalCloud, folder: Path) -> None:
        import register_model  # which takes boto3 with it

        self.cloud, self.signer = cloud, Signer()
        self._main, self._folder = register_model.main, folder
        self._sagemaker, self._s3 = cloud.aws.client("sagemaker"), cloud.aws.client("s3")
        cloud.aws.client("secretsmanager").create_secret(Name=SIGNING_KEY, SecretString=self.signer.pem)

    def register(self, files: dict[str, bytes]) -> str:
        """ARN of the package of a bundle's files."""
        archive = self._folder / "model.tar.gz"
        archive.write_bytes(trained(files))
        return str(self._main(["--archive", str(archive), "--group", "edgeml-models"]))

    def decide(self, package: str, status: str) -> None:
        kept = self._sagemaker.describe_model_package(ModelPackageName=package)["CustomerMetadataProperties"]
        self._sagemaker.update_model_package(  # moto forgets properties that an update does not repeat; AWS keeps them
            ModelPackageArn=package, ModelApprovalStatus=status, CustomerMetadataProperties=kept
        )
        self.cloud.drain()

    def documents(self) -> list[tuple[str, dict[str, Any]]]:
        """Key and content of every job document."""
        bucket = self._output("ModelBucketName")
        found = self._s3.list_objects_v2(Bucket=bucket).get("Contents", [])
        keys = [each["Key"] for each in found if each["Key"].endswith(".json")]
        return [(key, json.loads(self._s3.get_object(Bucket=bucket, Key=key)["Body"].read())) for key in keys]

    def replace_archive(self, package: str, content: bytes) -> None:
        description = self._sagemaker.describe_model_package(ModelPackageName=package)
        url = description["InferenceSpecification"]["Containers"][0]["ModelDataUrl"]
        bucket, _, key = url.removeprefix("s3://").partition("/")
        self._s3.put_object(Bucket=bucket, Key=key, Body=content)

    def jobs(self) -> list[str]:
        return [job["jobId"] for job in self.cloud.aws.client("iot").list_jobs()["jobs"]]

    def log(self) -> str:
        """Of the one build that there was."""
        assert self.cloud.builds is not None
        (build,) = self.cloud.aws.client("codebuild").list_builds()["ids"]
        return self.cloud.builds.log_file(build).read_text()

    def _output(self, name: str) -> str:
        assert self.cloud.stack is not None
        return str(self.cloud.stack.outputs[name])

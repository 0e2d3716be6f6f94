"""Asks a device through AWS IoT Core how it does, and shows its answer.

  ./scripts/look THING [--pictures] [--output FILE] [--timeout SECONDS] [--region REGION] [--mqtt URL]

The state is shown here and written with the pictures, if the device gives any, to one HTML file. The device needs
edgeml.Monitor; its `look` and `look_bucket` say what it gives. Exit codes: 0 answered, 1 not, 2 wrong arguments.
"""

import argparse
import re
import sys
from pathlib import Path
from typing import Any

from deployment import DeployError
from deployment.aws import Aws, in_words
from looking import LookError, page, text
from looking.answer import Fetch, complete
from looking.ask import ask, to_aws, to_broker

THING = re.compile(r"[a-zA-Z0-9:_-]{1,128}", re.ASCII)
TIMEOUT_S = 90.0  # a device fetches and uploads up to 16 pictures


def main(given: list[str] | None = None) -> int:
    options = _arguments(given)
    try:
        with in_words():
            aws = Aws(options.region)
            connection = to_broker(options.mqtt) if options.mqtt else _to_aws(aws)
            request_id, answer = ask(connection, options.thing, pictures=options.pictures, timeout_s=options.timeout)
            look = complete(options.thing, request_id, answer, objects_of(aws))
        for line in text.lines(look):
            print(line)
        path = options.output or Path(f"look-{options.thing.replace(':', '_')}.html")
        page.write(path, look)
        print(f"\n{len(look.pictures)} pictures, and all of this: {path}")
    except (LookError, DeployError) as error:
        print(f"scripts/look: {error}", file=sys.stderr)
        return error.code if isinstance(error, DeployError) else 1
    except KeyboardInterrupt:
        return 130
    return 0


def _arguments(given: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/look", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("thing", metavar="THING", help="name of the device's thing")
    parser.add_argument("--pictures", action="store_true", help="ask for a picture of each camera, too")
    parser.add_argument("--output", type=Path, metavar="FILE", help="the HTML file (look-THING.html)")
    parser.add_argument("--timeout", type=float, default=TIMEOUT_S, metavar="SECONDS", help="(%(default)g)")
    parser.add_argument("--region", help="the AWS region, else that of the environment or the AWS profile")
    parser.add_argument("--mqtt", metavar="URL", help="a broker in place of AWS IoT Core, mqtt://host:port")
    options = parser.parse_args(given)
    if not THING.fullmatch(options.thing):
        parser.error(f"{options.thing!r} is no name of a thing")
    if not 0 < options.timeout <= 3600:
        parser.error("--timeout: expected 1 to 3600 seconds")
    return options


def _to_aws(aws: Aws) -> Any:
    endpoint = aws.client("iot").describe_endpoint(endpointType="iot:Data-ATS")["endpointAddress"]
    return to_aws(endpoint, aws.region, aws.credentials())


def objects_of(aws: Aws) -> Fetch:
    """Objects of buckets of the caller's own account alone: a device could name any bucket."""

    def fetch(bucket: str, key: str, most: int) -> bytes:
        try:
            with in_words():
                _, account = aws.identity
                answer = aws.client("s3").get_object(Bucket=bucket, Key=key, ExpectedBucketOwner=account)
                data: bytes = answer["Body"].read(most + 1)
        except DeployError as error:
            raise LookError(f"s3://{bucket}/{key}: {error}") from error
        if len(data) > most:
            raise LookError(f"s3://{bucket}/{key}: more than {most} bytes")
        return data

    return fetch


if __name__ == "__main__":
    sys.exit(main())

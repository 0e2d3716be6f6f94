"""What Python can reach at shipping logs: 1 MiB reads, orjson, SigV4, one kept-alive connection, and nothing else.

No timestamps, no checkpoint, no rotation, no limits. Prints events and CPU microseconds an event, with start-up and
without.
"""

import http.client
import sys
import time
from urllib.parse import urlsplit

import orjson
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

BATCH = 3_600


def ship(paths: list[str], url: str) -> int:
    """Number of events sent."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=20)
    signer = SigV4Auth(Credentials("testing", "testing"), "logs", "eu-west-1")
    count, now = 0, int(time.time() * 1000)
    for path in paths:
        with open(path, "rb") as file:  # noqa: PTH123
            rest = b""
            while block := file.read(1 << 20):
                lines = (rest + block).split(b"\n")
                rest = lines.pop()
                for start in range(0, len(lines), BATCH):
                    batch = [{"timestamp": now, "message": line.decode()} for line in lines[start : start + BATCH]]
                    body = orjson.dumps({"logGroupName": "g", "logStreamName": "s", "logEvents": batch})
                    headers = {
                        "X-Amz-Target": "Logs_20140328.PutLogEvents",
                        "Content-Type": "application/x-amz-json-1.1",
                    }
                    request = AWSRequest("POST", url, headers=headers, data=body)
                    signer.add_auth(request)
                    connection.request("POST", "/", body, dict(request.headers.items()))
                    connection.getresponse().read()
                    count += len(batch)
    connection.close()
    return count


if __name__ == "__main__":
    began = time.process_time()
    events = ship(sys.argv[2:], sys.argv[1])
    ended = time.process_time()
    print(events, ended / events * 1e6, (ended - began) / events * 1e6)

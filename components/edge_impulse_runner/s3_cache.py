"""Published results in S3: `<model>_v<version>/<uuid>.img` and `.json`, bounded, and removed when asked.

Uploads and removals go through one durable queue in the order they were asked for, so that an outage delays them and
loses none, and an object can never arrive after its removal.
"""

from collections.abc import Callable
from pathlib import Path

from edgeml.drainer import Drainer
from edgeml.edge_impulse.cache import Ledger, is_uuid
from edgeml.errors import CloudError, EdgemlError, RefusedError, SpoolError
from edgeml.health import Health
from edgeml.s3 import Client, bucket_of
from edgeml.spool import Item, Spool

CLOSE_TIMEOUT_S = 1.0
_TYPES = {".img": "image/jpeg", ".json": "application/json"}


class S3Cache:
    """A Cache in `bucket`, below the prefix that `prefix` gives at the time. Raises SpoolError when made."""

    def __init__(
        self,
        bucket: str,
        prefix: Callable[[], str],
        work: Path,
        health: Health,
        *,
        max_items: int,
        max_bytes: int,
        spool_bytes: int,
    ) -> None:
        self._bucket, self._prefix, self._health = bucket, prefix, health.scope("s3")
        self._spool = Spool(
            work / "s3.spool", max_bytes=spool_bytes, lane=bucket_of, problems=health.problems, subject="s3"
        )
        self._ledger = Ledger(work / "s3.ledger", self._remove, max_items=max_items, max_bytes=max_bytes)
        self._s3 = Client()
        self._drainer = Drainer(self._spool, self._send, transient=(CloudError,))
        self._spool.measured(self._health)

    def put(self, uuid: str, payload: bytes, image: bytes) -> None:
        base = f"{self._bucket}/{self._prefix()}{uuid}"
        self._ledger.add(base, len(payload) + len(image))
        try:
            self._spool.put(f"{base}.json", payload, headers={"verb": "put"})
            self._spool.put(f"{base}.img", image, headers={"verb": "put"})
        except SpoolError as error:
            raise OSError(str(error)) from error

    def clear(self) -> bool:
        """True when the removal of all is written down; it then happens as soon as S3 can be reached."""
        return self._ledger.clear(self._ledger.entries())

    def clear_one(self, uuid: str) -> bool:
        bases = [base for base in self._ledger.entries() if is_uuid(uuid) and base.rpartition("/")[2] == uuid]
        return bool(bases) and self._ledger.clear(bases)

    def close(self) -> None:
        self._drainer.stop(flush_timeout=CLOSE_TIMEOUT_S)
        self._spool.close()
        self._health.forget()

    def _remove(self, base: str) -> None:
        try:
            for suffix in _TYPES:
                self._spool.put(base + suffix, b"", headers={"verb": "delete"})
        except SpoolError as error:
            raise OSError(str(error)) from error

    def _send(self, item: Item) -> None:
        bucket, _, key = item.topic.partition("/")
        verb, kind, what = item.headers.get("verb"), _TYPES.get(Path(key).suffix), f"s3://{item.topic}"
        if verb not in ("put", "delete") or kind is None:
            raise RefusedError(f"{what}: nothing is to be done with it ({verb})")
        try:
            if verb == "put":
                self._s3.call("put_object", what, Bucket=bucket, Key=key, Body=item.payload, ContentType=kind)
            else:
                self._s3.call("delete_object", what, Bucket=bucket, Key=key)
        except EdgemlError as error:
            self._health.error(error)
            raise
        self._health.count(verb)

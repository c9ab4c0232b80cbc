"""API keys in a DynamoDB table: only a hash of each secret is stored, and what its holder may do.

The text of a key is `hw_<id>_<secret>`. A secret has 256 random bits, so one SHA-256 is enough of a hash: there is
nothing to guess. Items: `id` (hash key), `secret_hash`, `name`, `contracts`, limits, `created_ms`, `revoked_ms`;
`usage#<id>#<day>` counts the events of a day (UTC), with `expires` for the table's time to live.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random, SystemRandom
from typing import Any

from botocore.exceptions import ClientError

from headwater.clock import Clock, SystemClock
from headwater.errors import UsageError

__all__ = ["ANY", "ApiKey", "KeyStore", "matches", "parse_key"]

ANY = "*"
"""In `contracts`: all of them."""
_KEY = re.compile(r"hw_([0-9a-f]{12})_([0-9a-f]{64})")
_DAYS_KEPT = 40
_NOBODY = "-"
"""An id that no key has."""


@dataclass(frozen=True)
class ApiKey:
    """A key without its secret. Limits of 0 are none."""

    key_id: str
    name: str
    contracts: frozenset[str]
    secret_hash: str
    events_per_second: float = 0
    burst: int = 0
    """How many events may come at once; 0 is ten seconds' worth."""
    events_per_day: int = 0
    created_ms: int = 0
    revoked_ms: int = 0


def parse_key(text: str) -> tuple[str, str] | None:
    """Id and secret of a key, None when the text is none."""
    found = _KEY.fullmatch(text)
    return (found[1], found[2]) if found else None


def matches(key: ApiKey | None, secret: str) -> bool:
    """Whether it is the key's secret; takes as long for a key that there is not."""
    expected = key.secret_hash if key is not None else "0" * 64
    same = hmac.compare_digest(_hash(secret), expected)
    return same and key is not None and not key.revoked_ms


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


class KeyStore:
    """The table. Every method is one call to DynamoDB."""

    def __init__(self, client: Any, table: str, clock: Clock | None = None, random: Random | None = None) -> None:
        self._client, self._table = client, table
        self._clock = clock or SystemClock()
        self._random = random or SystemRandom()

    def ensure_table(self) -> None:
        """Make the table where it is missing."""
        try:
            self._client.describe_table(TableName=self._table)
        except ClientError as error:
            if error.response["Error"]["Code"] != "ResourceNotFoundException":
                raise
            self._client.create_table(
                TableName=self._table,
                KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
                AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
                BillingMode="PAY_PER_REQUEST",
            )
            self._client.get_waiter("table_exists").wait(TableName=self._table)
            self._client.update_time_to_live(
                TableName=self._table, TimeToLiveSpecification={"Enabled": True, "AttributeName": "expires"}
            )

    def check(self) -> None:
        """UsageError when there is no such table, ClientError when it cannot be read. Asks as `get` does: a service
        that looks keys up is granted nothing else."""
        try:
            self.get(_NOBODY)
        except ClientError as error:
            if error.response["Error"]["Code"] == "ResourceNotFoundException":
                raise UsageError(
                    f"there is no table {self._table} of API keys (HEADWATER_GATEWAY_KEYS_TABLE)"
                ) from None
            raise

    def create(
        self,
        name: str,
        contracts: frozenset[str],
        *,
        events_per_second: float = 0,
        burst: int = 0,
        events_per_day: int = 0,
    ) -> tuple[ApiKey, str]:
        """A new key and its text, which is nowhere else."""
        if not contracts:
            raise UsageError("a key needs at least one contract, or *")
        if min(events_per_second, burst, events_per_day) < 0:
            raise UsageError("limits of a key are not below 0")
        key_id, secret = f"{self._random.getrandbits(48):012x}", f"{self._random.getrandbits(256):064x}"
        key = ApiKey(
            key_id, name, contracts, _hash(secret), events_per_second, burst, events_per_day, self._clock.now_ms()
        )
        self._client.put_item(TableName=self._table, Item=_item(key), ConditionExpression="attribute_not_exists(id)")
        return key, f"hw_{key_id}_{secret}"

    def get(self, key_id: str) -> ApiKey | None:
        """The key of that id."""
        item = self._client.get_item(TableName=self._table, Key={"id": {"S": key_id}}).get("Item")
        return _key(item) if item else None

    def list(self) -> list[ApiKey]:
        """All keys, oldest first, the revoked too."""
        pages = self._client.get_paginator("scan").paginate(
            TableName=self._table, FilterExpression="attribute_exists(secret_hash)"
        )
        return sorted((_key(item) for page in pages for item in page["Items"]), key=lambda key: key.created_ms)

    def revoke(self, key_id: str) -> None:
        """From now on (gateways ask again every few seconds) the key opens nothing. UsageError when there is none."""
        try:
            self._client.update_item(
                TableName=self._table,
                Key={"id": {"S": key_id}},
                UpdateExpression="SET revoked_ms = :now",
                ConditionExpression="attribute_exists(secret_hash)",
                ExpressionAttributeValues={":now": {"N": str(self._clock.now_ms())}},
            )
        except ClientError as error:
            if error.response["Error"]["Code"] == "ConditionalCheckFailedException":
                raise UsageError(f"key {key_id}: there is no such key in table {self._table}") from None
            raise

    def add_usage(self, key_id: str, day: str, events: int) -> int:
        """Count events of a day; the day's sum over all gateways."""
        expires = self._clock.now_ms() // 1000 + _DAYS_KEPT * 86_400
        answer = self._client.update_item(
            TableName=self._table,
            Key={"id": {"S": f"usage#{key_id}#{day}"}},
            UpdateExpression="SET expires = :expires ADD events :events",
            ExpressionAttributeValues={":expires": {"N": str(expires)}, ":events": {"N": str(events)}},
            ReturnValues="ALL_NEW",
        )
        return int(answer["Attributes"]["events"]["N"])


def _item(key: ApiKey) -> dict[str, Any]:
    return {
        "id": {"S": key.key_id},
        "name": {"S": key.name},
        "contracts": {"SS": sorted(key.contracts)},
        "secret_hash": {"S": key.secret_hash},
        "events_per_second": {"N": str(key.events_per_second)},
        "burst": {"N": str(key.burst)},
        "events_per_day": {"N": str(key.events_per_day)},
        "created_ms": {"N": str(key.created_ms)},
    }


def _key(item: Mapping[str, Any]) -> ApiKey:
    def number(name: str) -> float:
        return float(item.get(name, {"N": "0"})["N"])

    return ApiKey(
        key_id=item["id"]["S"],
        name=item["name"]["S"],
        contracts=frozenset(item["contracts"]["SS"]),
        secret_hash=item["secret_hash"]["S"],
        events_per_second=number("events_per_second"),
        burst=int(number("burst")),
        events_per_day=int(number("events_per_day")),
        created_ms=int(number("created_ms")),
        revoked_ms=int(number("revoked_ms")),
    )

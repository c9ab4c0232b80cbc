"""Keep API keys in a DynamoDB table: only a hash of each secret is stored, and what its holder may do.

The text of a key is `hw_<id>_<secret>`. A secret has 256 random bits, so one SHA-256 is enough of a hash: there is
nothing to guess. Items: `id` (hash key), `secret_hash`, `name`, `contracts`, `id_prefixes`, limits, `created_ms`,
`revoked_ms`; `usage#<id>#<day>` counts the events of a day (UTC), with `expires` for the table's time to live.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from random import Random, SystemRandom
from typing import Any

from botocore.exceptions import ClientError

from headwater.clock import Clock, SystemClock
from headwater.errors import UsageError

__all__ = ["ALL_CONTRACTS", "ANY_ID", "ApiKey", "KeyStore", "matches", "parse_key"]

ALL_CONTRACTS = "*"
"""Stands for all contracts in a key's `contracts`."""
ANY_ID = "*"
"""Stands for all ids in a key's `id_prefixes`: its holder is trusted with the ids of every other."""
_PREFIX = re.compile(r"[!-~]{1,128}")
_KEY = re.compile(r"hw_([0-9a-f]{12})_([0-9a-f]{64})")
_DAYS_KEPT = 40
_NOBODY = "-"
"""An id that no key has."""


@dataclass(frozen=True)
class ApiKey:
    """Hold a key without its secret. A limit of 0 is none."""

    key_id: str
    name: str
    contracts: frozenset[str]
    secret_hash: str
    events_per_second: float = 0
    burst: int = 0
    """Number of events that may come at once; 0 is ten seconds' worth."""
    events_per_day: int = 0
    id_prefixes: frozenset[str] = frozenset()
    """Prefixes of the ids that the holder may write, for contracts whose events have ids of their own."""
    created_ms: int = 0
    revoked_ms: int = 0


def parse_key(text: str) -> tuple[str, str] | None:
    """Return id and secret of a key's text, None when the text is no key."""
    found = _KEY.fullmatch(text)
    return (found[1], found[2]) if found else None


def matches(key: ApiKey | None, secret: str) -> bool:
    """Say whether it is the secret of a key that is not revoked, in the same time whether the key exists or not."""
    expected = key.secret_hash if key is not None else "0" * 64
    same = hmac.compare_digest(_hash(secret), expected)
    return same and key is not None and not key.revoked_ms


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


class KeyStore:
    """Read and write the table of keys. Every method is one call to DynamoDB, or its pages."""

    def __init__(self, client: Any, table: str, clock: Clock | None = None, random: Random | None = None) -> None:
        self._client, self._table = client, table
        self._clock = clock or SystemClock()
        self._random = random or SystemRandom()

    def ensure_table(self) -> None:
        """Create the table when it is missing."""
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
        """Raise UsageError when there is no such table, ClientError when it cannot be read.

        Asks as `get` does, since the role of a service that looks keys up has no other right.
        """
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
        id_prefixes: frozenset[str] = frozenset(),
    ) -> tuple[ApiKey, str]:
        """Create a key and return it with its text, which is stored nowhere.

        UsageError for prefixes that overlap those of a key of another name, so that two holders never share an id.
        """
        if not contracts:
            raise UsageError("a key needs at least one contract, or *")
        if min(events_per_second, burst, events_per_day) < 0:
            raise UsageError("limits of a key are not below 0")
        key_id, secret = f"{self._random.getrandbits(48):012x}", f"{self._random.getrandbits(256):064x}"
        key = ApiKey(
            key_id,
            name,
            contracts,
            _hash(secret),
            events_per_second=events_per_second,
            burst=burst,
            events_per_day=events_per_day,
            id_prefixes=id_prefixes,
            created_ms=self._clock.now_ms(),
        )
        self._check_prefixes(key)
        self._client.put_item(TableName=self._table, Item=_item(key), ConditionExpression="attribute_not_exists(id)")
        return key, f"hw_{key_id}_{secret}"

    def bind(self, key_id: str, id_prefixes: frozenset[str]) -> ApiKey:
        """Set the id prefixes of a key and return it; gateways notice within `key_seconds`.

        UsageError when there is no such key, and for prefixes as in `create`.
        """
        key = self.get(key_id)
        if key is None:
            raise _no_key(key_id, self._table)
        bound = replace(key, id_prefixes=id_prefixes)
        self._check_prefixes(bound)
        self._client.update_item(
            TableName=self._table,
            Key={"id": {"S": key_id}},
            UpdateExpression="SET id_prefixes = :prefixes",
            ConditionExpression="attribute_exists(secret_hash)",
            ExpressionAttributeValues={":prefixes": {"SS": sorted(id_prefixes)}},
        )
        return bound

    def _check_prefixes(self, key: ApiKey) -> None:
        """Raise UsageError for prefixes that cannot be, or that overlap another holder's of the same contract."""
        for prefix in key.id_prefixes:
            if not _PREFIX.fullmatch(prefix):
                raise UsageError(f"id prefix {prefix!r} is not 1 to 128 ASCII characters without spaces")
        if not key.id_prefixes - {ANY_ID}:
            return  # nothing to compare: the table is not scanned for the usual key
        for other in self.list():
            # the same name is the same holder: a new key takes over from an old one
            if other.name == key.name or other.revoked_ms or not _share_a_contract(key, other):
                continue
            for mine in key.id_prefixes - {ANY_ID}:
                for theirs in other.id_prefixes - {ANY_ID}:
                    if mine.startswith(theirs) or theirs.startswith(mine):
                        raise UsageError(
                            f"id prefix {mine!r} overlaps {theirs!r} of key {other.key_id} ({other.name}): "
                            "each could send ids of the other"
                        )

    def get(self, key_id: str) -> ApiKey | None:
        """Return the key with that id, None when there is none."""
        # consistent here and in `list`: a key works at once, and no other holder's new prefix is overlooked
        answer = self._client.get_item(TableName=self._table, Key={"id": {"S": key_id}}, ConsistentRead=True)
        item = answer.get("Item")
        return _key(item) if item else None

    def list(self) -> list[ApiKey]:
        """Return all keys, oldest first, including revoked ones."""
        pages = self._client.get_paginator("scan").paginate(
            TableName=self._table, FilterExpression="attribute_exists(secret_hash)", ConsistentRead=True
        )
        return sorted((_key(item) for page in pages for item in page["Items"]), key=lambda key: key.created_ms)

    def revoke(self, key_id: str) -> None:
        """Revoke a key; gateways notice within `key_seconds`. UsageError when there is no such key."""
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
                raise _no_key(key_id, self._table) from None
            raise

    def reserve_usage(self, key_id: str, day: str, least: int, most: int, limit: int) -> int:
        """Add `most` events to a key's count of a day, or `least`, as long as it stays within `limit`.

        Returns how many were added; 0 when not even `least` are left.
        """
        for events in sorted({least, most}, reverse=True):
            if events > limit:
                continue
            try:
                self._add_usage(key_id, day, events, limit - events)
            except ClientError as error:
                if error.response["Error"]["Code"] != "ConditionalCheckFailedException":
                    raise
            else:
                return events
        return 0

    def add_usage(self, key_id: str, day: str, events: int) -> int:
        """Add events to a key's count of a day (UTC), or take them from it, and return the sum over all gateways."""
        return self._add_usage(key_id, day, events, None)

    def _add_usage(self, key_id: str, day: str, events: int, at_most: int | None) -> int:
        expires = self._clock.now_ms() // 1000 + _DAYS_KEPT * 86_400
        values = {":expires": {"N": str(expires)}, ":events": {"N": str(events)}}
        condition: dict[str, str] = {}
        if at_most is not None:
            values[":most"] = {"N": str(at_most)}
            condition = {"ConditionExpression": "attribute_not_exists(events) OR events <= :most"}
        answer = self._client.update_item(
            TableName=self._table,
            Key={"id": {"S": f"usage#{key_id}#{day}"}},
            UpdateExpression="SET expires = :expires ADD events :events",
            ExpressionAttributeValues=values,
            ReturnValues="ALL_NEW",
            **condition,
        )
        return int(answer["Attributes"]["events"]["N"])


def _no_key(key_id: str, table: str) -> UsageError:
    return UsageError(f"key {key_id}: there is no such key in table {table}")


def _share_a_contract(one: ApiKey, other: ApiKey) -> bool:
    return ALL_CONTRACTS in one.contracts | other.contracts or bool(one.contracts & other.contracts)


def _item(key: ApiKey) -> dict[str, Any]:
    item: dict[str, Any] = {
        "id": {"S": key.key_id},
        "name": {"S": key.name},
        "contracts": {"SS": sorted(key.contracts)},
        "secret_hash": {"S": key.secret_hash},
        "events_per_second": {"N": str(key.events_per_second)},
        "burst": {"N": str(key.burst)},
        "events_per_day": {"N": str(key.events_per_day)},
        "created_ms": {"N": str(key.created_ms)},
    }
    if key.id_prefixes:  # DynamoDB has no empty sets
        item["id_prefixes"] = {"SS": sorted(key.id_prefixes)}
    return item


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
        id_prefixes=frozenset(item.get("id_prefixes", {"SS": ()})["SS"]),
        created_ms=int(number("created_ms")),
        revoked_ms=int(number("revoked_ms")),
    )

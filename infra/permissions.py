"""Say what each service may do: the table from which every role is made, and which calls are checked against. Pure.

A grant names actions and what they may be done to. Actions that no test makes on the emulator stand in `unseen` with
the reason; tests/infra/test_deploys.py holds both ways: what is called is granted, what is granted is called.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from infra.settings import Deployment

__all__ = ["KEY", "ROLES", "Grant", "statements"]

KEY = "the key"
"""Stands for the ARN of the deployment's KMS key, which only CloudFormation knows."""
_BY_AWS = "made by AWS in the service's name, not by its code"
_KCL = "made by the KCL's Java daemon, as its documentation lists them; tests/integration/test_kcl.py runs it"
_MOTO_ENCRYPTS_NOTHING = "needed on an encrypted stream, table or bucket; the emulator encrypts nothing"


@dataclass(frozen=True)
class Grant:
    """Allow actions on resources. `unseen` has actions that no recorded run makes, and why they are needed."""

    actions: tuple[str, ...]
    on: tuple[str, ...]
    unseen: Mapping[str, str] = field(default_factory=dict)
    leading: str = ""
    """Hash key that is meant of a DynamoDB table; all of them where it is empty."""


def _actions(service: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{service}:{name}" for name in names)


def _all(actions: Sequence[str], why: str) -> dict[str, str]:
    return dict.fromkeys(actions, why)


_STREAM = ("arn:aws:kinesis:{region}:{account}:stream/{stream}",)
_LEDGER = ("arn:aws:dynamodb:{region}:{account}:table/{stream}-ledger",)
_VIEWS = ("arn:aws:dynamodb:{region}:{account}:table/{stream}-views",)
_KEYS = ("arn:aws:dynamodb:{region}:{account}:table/{stream}-keys",)
_BUS = ("arn:aws:events:{region}:{account}:event-bus/{stream}",)
_LEASES = tuple(
    f"arn:aws:dynamodb:{{region}}:{{account}}:table/{{application}}{suffix}"
    for suffix in ("", "-WorkerMetricStats", "-CoordinatorState")
)
_CATALOG = (
    "arn:aws:glue:{region}:{account}:catalog",
    "arn:aws:glue:{region}:{account}:database/{database}",
    "arn:aws:glue:{region}:{account}:table/{database}/*",
)
_ENDED = "a state object that a newer one has replaced; small states lie in the ledger's item"
_LEFT = "large states that an owner has left which died; tests/unit/test_state_leftovers.py has some"
_TOGETHER = "a flush of 16 rows or more; tests/unit/test_view_together.py has some"
_SPREAD = "the rows of a view with `spread` lie in several partitions"
_LARGE = "a state or a first version of a reference table that is too large for, or not yet in, the ledger"


_BUCKET = ("arn:aws:s3:::{bucket}",)


def _decrypts() -> Grant:
    actions = _actions("kms", "Decrypt")
    return Grant(actions, (KEY,), _all(actions, _MOTO_ENCRYPTS_NOTHING))


def _encrypts() -> Grant:
    actions = _actions("kms", "Decrypt", "GenerateDataKey")
    return Grant(actions, (KEY,), _all(actions, _MOTO_ENCRYPTS_NOTHING))


def _bucket(*prefixes: str) -> tuple[str, ...]:
    return tuple(f"arn:aws:s3:::{{bucket}}/{prefix}/*" for prefix in prefixes)


_PROCESS = (
    Grant(_actions("kinesis", "DescribeStreamSummary", "ListShards", "GetShardIterator", "GetRecords"), _STREAM),
    Grant(_actions("dynamodb", "GetItem", "PutItem", "UpdateItem"), _LEDGER),
    Grant(
        _actions("dynamodb", "Query"),
        _LEDGER,
        {"dynamodb:Query": "a shard whose parent is past the retention; tests/unit/test_upstream.py has some"},
    ),
    Grant(
        _actions("dynamodb", "GetItem", "BatchGetItem", "PutItem", "Query", "PartiQLInsert", "PartiQLUpdate"),
        _VIEWS,
        _all(_actions("dynamodb", "PartiQLInsert", "PartiQLUpdate"), _TOGETHER)
        | {
            "dynamodb:GetItem": "a row that turns out to be newer than what is to be written is read back",
            "dynamodb:Query": "the slots of a row that many shards feed lie in items of their own",
        },
    ),
    Grant(
        _actions("s3", "PutObject"),
        _bucket("lake", "dlq", "reference", "state"),
    ),
    Grant(_actions("s3", "GetObject"), _bucket("reference", "state")),
    Grant(_actions("s3", "DeleteObject"), _bucket("state"), {"s3:DeleteObject": _ENDED}),
    Grant(_actions("s3", "ListBucket"), _BUCKET, {"s3:ListBucket": _LEFT}),
    _encrypts(),
)
_LEASING = (
    Grant(
        _actions("dynamodb", "CreateTable", "DescribeTable", "Scan", "GetItem", "PutItem", "UpdateItem", "DeleteItem"),
        _LEASES,
        _all(
            _actions("dynamodb", "CreateTable", "DescribeTable", "Scan", "GetItem", "PutItem", "UpdateItem")
            + _actions("dynamodb", "DeleteItem"),
            _KCL,
        ),
    ),
    Grant(_actions("dynamodb", "UpdateTable"), _LEASES[:1], {"dynamodb:UpdateTable": _KCL}),
    Grant(
        _actions("dynamodb", "Query"),
        ("arn:aws:dynamodb:{region}:{account}:table/{application}/index/LeaseOwnerToLeaseKeyIndex",),
        {"dynamodb:Query": _KCL},
    ),
)
_READS_LAKE = (
    Grant(_actions("glue", "GetTable"), _CATALOG),
    Grant(_actions("s3", "GetObject"), _bucket("lake")),
    Grant(_actions("s3", "ListBucket"), _BUCKET),
)
_AUDIT = (
    Grant(_actions("dynamodb", "Query", "GetItem"), _LEDGER),
    Grant(_actions("kinesis", "DescribeStreamSummary", "ListShards"), _STREAM),
    *_READS_LAKE,
    Grant(_actions("s3", "GetObject"), _bucket("state"), {"s3:GetObject": _LARGE}),
    _decrypts(),
)
_PUBLISH = (
    Grant(_actions("dynamodb", "Query", "GetItem", "UpdateItem"), _LEDGER),
    Grant(_actions("glue", "CreateDatabase", "GetDatabase", "GetTable", "CreateTable", "UpdateTable"), _CATALOG),
    Grant(_actions("s3", "GetObject", "PutObject"), _bucket("lake")),
    Grant(_actions("s3", "ListBucket"), _BUCKET),
    Grant(
        _actions("s3", "DeleteObject"),
        _bucket("lake"),
        {"s3:DeleteObject": "old metadata files, manifests of forgotten snapshots and of a commit that failed"},
    ),
    Grant(
        _actions("kinesis", "ListShards", "PutRecord"),
        _STREAM,
        _all(_actions("kinesis", "ListShards", "PutRecord"), "a reference table's new version, put on every shard"),
    ),
    _encrypts(),
)
_TIPS = Grant(
    _actions("kinesis", "GetShardIterator", "GetRecords"),
    _STREAM,
    _all(
        _actions("kinesis", "GetShardIterator", "GetRecords"),
        "a shard without a commit for an hour; tests/unit/test_tip_rounds.py has some",
    ),
)
_OF_VIEWS = "the tables of views; tests/integration/test_view_tables.py has some"
_WRITES_VIEWS = (
    Grant(
        _actions("glue", "CreateDatabase", "CreateTable"),
        _CATALOG,
        _all(_actions("glue", "CreateDatabase", "CreateTable"), _OF_VIEWS),
    ),
    Grant(
        _actions("dynamodb", "Query", "UpdateItem"),
        _LEDGER,
        _all(_actions("dynamodb", "Query", "UpdateItem"), _OF_VIEWS),
    ),
    Grant(_actions("kinesis", "ListShards"), _STREAM, {"kinesis:ListShards": _OF_VIEWS}),
)
_MAINTAIN = (
    Grant(_actions("dynamodb", "Scan", "GetItem"), _LEDGER),
    Grant(_actions("glue", "GetDatabase", "GetTable", "UpdateTable"), _CATALOG),
    *_WRITES_VIEWS,
    Grant(
        _actions("s3", "GetObject", "PutObject", "DeleteObject"),
        _bucket("lake"),
        {"s3:DeleteObject": "orphans, which are older than an hour; tests/integration/test_maintain_command.py"},
    ),
    Grant(_actions("s3", "ListBucket"), _BUCKET),
    _encrypts(),
)
_ALERTS = (
    Grant(_actions("kinesis", "ListShards"), _STREAM),
    Grant(
        _actions("dynamodb", "GetItem", "Query", "UpdateItem", "DeleteItem"),
        _LEDGER,
        {"dynamodb:DeleteItem": "a key that was about to fire and did not; tests/unit/test_alert_store.py"},
    ),
    Grant(
        _actions("dynamodb", "Query", "BatchGetItem"),
        _VIEWS,
        _all(
            _actions("dynamodb", "Query", "BatchGetItem"),
            "a window that is final on every shard; tests/integration/test_alerts.py has some",
        ),
    ),
    Grant(
        _actions("events", "PutEvents"), _BUS, {"events:PutEvents": "something fires; tests/integration/test_alerts.py"}
    ),
    _encrypts(),
)
_LOGS = Grant(
    _actions("logs", "CreateLogStream", "PutLogEvents"),
    ("arn:aws:logs:{region}:{account}:log-group:/headwater/{stage}/{service}:*",),
    _all(_actions("logs", "CreateLogStream", "PutLogEvents"), _BY_AWS),
)
_MAPPING = (
    Grant(
        _actions("kinesis", "DescribeStream", "DescribeStreamSummary"),
        _STREAM,
        _all(_actions("kinesis", "DescribeStream", "DescribeStreamSummary"), _BY_AWS + " (event source mapping)"),
    ),
    Grant(
        _actions("sqs", "SendMessage", "ReceiveMessage", "DeleteMessage", "GetQueueAttributes"),
        ("arn:aws:sqs:{region}:{account}:{stream}-given-up",),
        _all(
            _actions("sqs", "SendMessage", "ReceiveMessage", "DeleteMessage", "GetQueueAttributes"),
            _BY_AWS + " (event source mapping)",
        ),
    ),
)

ROLES: Mapping[str, tuple[Grant, ...]] = {
    "kcl": (*_PROCESS, *_LEASING),
    "publish": _PUBLISH,
    "audit": _AUDIT,
    "maintain": _MAINTAIN,
    "alerts": _ALERTS,
    "gateway": (
        Grant(_actions("kinesis", "PutRecords", "PutRecord", "ListShards"), _STREAM),
        Grant(_actions("dynamodb", "GetItem", "UpdateItem"), _KEYS),
        Grant(_actions("dynamodb", "GetItem"), _LEDGER, leading="@streams"),
        _encrypts(),
    ),
    "serve": (
        Grant(_actions("dynamodb", "Query", "BatchGetItem"), _VIEWS, {"dynamodb:BatchGetItem": _SPREAD}),
        Grant(
            _actions("dynamodb", "GetItem", "Query"),
            _LEDGER,
            {"dynamodb:Query": "the console's audit; tests/integration/test_console.py runs it"},
        ),
        Grant(_actions("dynamodb", "GetItem"), _KEYS, {"dynamodb:GetItem": "who is calling: as in the gateway"}),
        Grant(
            _actions("kinesis", "ListShards", "DescribeStreamSummary"),
            _STREAM,
            {"kinesis:DescribeStreamSummary": "the console's audit; tests/integration/test_console.py runs it"},
        ),
        *_READS_LAKE,
        Grant(_actions("glue", "GetTables"), _CATALOG),
        Grant(
            _actions("s3", "GetObject"),
            _bucket("dlq", "state"),
            {"s3:GetObject": f"a dead letter's text; {_LARGE}"},
        ),
        _decrypts(),
    ),
    "function": (*_PROCESS, *_MAPPING, _LOGS),
    "function-publish": (*_PUBLISH, _TIPS, _LOGS),
    "function-audit": (*_AUDIT, _LOGS),
}
"""Grants by service. The functions are the serverless model's kcl, publish and audit."""


def statements(service: str, deployed: Deployment) -> list[tuple[Grant, tuple[str, ...]]]:
    """Return the service's grants with the resources' ARNs in this deployment; KEY stays as it is."""
    names = {
        "region": deployed.region,
        "account": deployed.account,
        "stage": deployed.stage,
        "stream": deployed.stream,
        "bucket": deployed.bucket,
        "database": deployed.database,
        "application": deployed.application,
        "service": service,
    }
    return [(grant, tuple(one.format_map(names) for one in grant.on)) for grant in ROLES[service]]

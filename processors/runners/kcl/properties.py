"""Translate our settings into the MultiLangDaemon's properties file and its logback configuration. Pure."""

from collections.abc import Mapping
from datetime import UTC
from urllib.parse import urlsplit

from headwater.config import KclSettings, Settings
from headwater.errors import UsageError

__all__ = ["LOGBACK", "FleetNames", "foreign_endpoint", "properties", "render"]

LOGBACK = """<configuration>
  <appender name="OUT" class="ch.qos.logback.core.ConsoleAppender">
    <encoder class="ch.qos.logback.classic.encoder.JsonEncoder"/>
  </appender>
  <logger name="software.amazon.kinesis.multilang" level="WARN"/>
  <logger name="software.amazon.kinesis.multilang.MultiLangDaemon" level="INFO"/>
  <logger name="software.amazon.kinesis.multilang.DrainChildSTDERRTask" level="OFF"/>
  <logger name="software.amazon.kinesis" level="INFO"/>
  <logger name="software.amazon.kinesis.coordinator.assignment" level="WARN"/>
  <root level="WARN"><appender-ref ref="OUT"/></root>
</configuration>
"""
"""JSON on stdout. What the shards' processes write to stderr, the daemon logs as an error *and* copies to its own
stderr (DrainChildSTDERRTask); the copy is enough. MultiLangProtocol logs every answer of a child at INFO."""


class FleetNames:
    """Derive the names of a fleet in the KCL: its application and its tables."""

    def __init__(self, settings: Settings, pipeline: str) -> None:
        kcl = settings.kcl
        self.application = kcl.application or f"{settings.stream}-{pipeline}"
        self.table = kcl.table or self.application
        self.worker_metrics = f"{self.application}-WorkerMetricStats"
        self.coordinator = f"{self.application}-CoordinatorState"


def properties(
    settings: Settings, fleet: FleetNames, worker: str, executable: str, endpoints: Mapping[str, str]
) -> dict[str, str]:
    """Return the daemon's properties. `endpoints` has those of kinesis and dynamodb that are not AWS's own.

    Raises UsageError when AT_TIMESTAMP has no point in time.
    """
    kcl = settings.kcl
    failover_ms = round(kcl.failover_seconds * 1000)
    out = {
        "executableName": executable,
        "processingLanguage": "python",
        "streamName": settings.stream,
        "applicationName": fleet.application,
        "tableName": fleet.table,
        "workerId": worker,
        "AwsCredentialsProvider": "DefaultCredentialsProvider",
        "metricsLevel": kcl.metrics,
        # commits and view flushes are due on quiet shards as well
        "callProcessRecordsEvenForEmptyRecordList": "true",
        "failoverTimeMillis": str(failover_ms),
        "shardSyncIntervalMillis": str(round(kcl.shard_sync_seconds * 1000)),
        "shutdownGraceMillis": str(round(kcl.shutdown_seconds * 1000)),
        "clientVersionConfig": f"CLIENT_VERSION_CONFIG_{_mode(kcl)}",
        "initialLeaseTableReadCapacity": str(kcl.capacity),
        "initialLeaseTableWriteCapacity": str(kcl.capacity),
        "workerMetricsTableName": fleet.worker_metrics,
        "coordinatorStateTableName": fleet.coordinator,
        "workerMetricsBillingMode": kcl.billing,
        "coordinatorStateBillingMode": kcl.billing,
        # a pause of the KCL's between a parent's end and its children, and after a failed task
        "parentShardPollIntervalMillis": str(min(10_000, failover_ms)),
        "taskBackoffTimeMillis": "500",
    }
    if kcl.mode == "3X":
        # The leader counts a dead worker as living for two of these (30 s each by default) and gives expired leases,
        # the dead one's own too, to the least loaded of the living: LeaseAssignmentManager.
        out["workerMetricsReporterFreqInMillis"] = str(min(30_000, failover_ms))
    if kcl.assignment_seconds:
        out["leaseAssignmentIntervalMillis"] = str(round(kcl.assignment_seconds * 1000))
    return out | _start(kcl) | _retrieval(kcl, fleet) | _endpoints(endpoints)


def _mode(kcl: KclSettings) -> str:
    return "COMPATIBLE_WITH_2X" if kcl.mode == "2X" else "3X"


def _start(kcl: KclSettings) -> dict[str, str]:
    if kcl.start != "AT_TIMESTAMP":
        return {"initialPositionInStream": kcl.start}
    if kcl.start_at is None:
        raise UsageError("HEADWATER_KCL_START is AT_TIMESTAMP: set HEADWATER_KCL_START_AT, as in 2026-01-31T12:00:00Z")
    at = kcl.start_at if kcl.start_at.tzinfo else kcl.start_at.replace(tzinfo=UTC)
    return {"initialPositionInStreamExtended": str(int(at.timestamp()))}


def _retrieval(kcl: KclSettings, fleet: FleetNames) -> dict[str, str]:
    if kcl.retrieval == "FANOUT":
        return {"retrievalMode": "FANOUT", "fanoutConfig.consumerName": kcl.consumer or fleet.application}
    return {
        "retrievalMode": "POLLING",
        "maxRecords": str(kcl.max_records),
        "idleTimeBetweenReadsInMillis": str(kcl.idle_ms),
    }


def _endpoints(endpoints: Mapping[str, str]) -> dict[str, str]:
    names = {"kinesis": "kinesisEndpoint", "dynamodb": "dynamoDBEndpoint", "region": "regionName"}
    return {names[service]: url for service, url in endpoints.items()}


def foreign_endpoint(url: str) -> bool:
    """Tell whether an endpoint is not AWS's own: an emulator or a private address that the daemon must be given."""
    host = urlsplit(url).hostname or ""
    return not host.endswith((".amazonaws.com", ".amazonaws.com.cn", ".api.aws"))


def render(values: Mapping[str, str]) -> str:
    """Return the text that java.util.Properties reads: backslashes and line ends escaped, ASCII."""
    lines = []
    for name, value in values.items():
        escaped = value.replace("\\", "\\\\").replace("\n", "\\n")
        lines.append(f"{name} = " + "".join(c if ord(c) < 128 else f"\\u{ord(c):04x}" for c in escaped))
    return "\n".join(lines) + "\n"

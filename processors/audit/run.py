"""Read the audit's inputs: ledger entries, committed states, the identities in the lake."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

from botocore.exceptions import ClientError

from headwater.errors import Retryable
from headwater.ledger import PendingFile, ShardEntry
from headwater.processors.audit.accepted import accepted_gaps, end_returned
from headwater.processors.audit.audit import AuditOptions, audit
from headwater.processors.audit.lake import LakeFiles
from headwater.processors.audit.report import AuditReport, UnreadableFile
from headwater.processors.engine.state import ShardState
from headwater.processors.ports import OpenTable, PipelineReader, PipelineStores, StreamClient
from headwater.processors.runners.upstream import stream_mismatch
from headwater.processors.shard.snapshots import StateStore
from headwater.sinks.lake.health import Freshness, freshness
from headwater.sinks.lake.quarantine import quarantined_files, unnamed_files
from headwater.stream.shards import list_shards

__all__ = ["lake_freshness", "run_audit"]

_ATTEMPTS = 3

log = logging.getLogger("headwater.audit")


def run_audit(reader: PipelineReader) -> AuditReport:
    """Read every hop and compare: exact for what is committed, while the pipeline runs as well."""
    for _ in range(_ATTEMPTS):
        report = _audit(reader)
        needed = _still_needed(report.unreadable, reader) if report.unreadable else ()
        if needed == report.unreadable:
            _end_returned(reader.stores, report)
            return report
        # a file went while it was to be read, because maintenance had replaced it: its rows are in another one
    raise Retryable(f"pipeline {reader.stores.pipeline.name}: files of the lake keep being replaced; audit again")


def _end_returned(stores: PipelineStores, report: AuditReport) -> None:
    """Write down that accepted events are there again. A role that may only read sees the same report."""
    try:
        end_returned(stores.pipeline.name, stores.ledger, stores.objects, report.evidence)
    except (ClientError, Retryable) as error:
        log.warning("not noted that events accepted as missing are there again", extra={"reason": str(error)})


def _audit(reader: PipelineReader) -> AuditReport:
    stores, own_id = reader.stores, reader.stores.pipeline.contract.id
    # in this order: what is committed between two of these readings is then in the later one, and never missing
    entries = stores.ledger.shards()
    listed = _listed(reader.stream)
    files = LakeFiles(reader.open_table())
    report = audit(
        stores.pipeline.name,
        entries,
        _states(stores, entries),
        files.live(files.tasks()),
        files.pending(_pending(entries)),
        later=lambda: _states(stores, stores.ledger.shards()),
        listed=listed,
        options=AuditOptions(
            single_events=own_id is not None and own_id.seq is None,
            accepted=accepted_gaps(stores.ledger, stores.objects),
        ),
    )
    return replace(
        report,
        unreadable=tuple(files.unreadable),
        quarantined=tuple(quarantined_files(stores.ledger)),
        unnamed=unnamed_files(stores.ledger),
        other_stream=_other_stream(reader.stream, stores),
    )


def _other_stream(stream: StreamClient, stores: PipelineStores) -> str:
    """Return why the ledger is of another stream than the one that is there.

    Empty when it is not, when no stream is there, and when the role may not ask.
    """
    try:
        return stream_mismatch(stream.kinesis, stream.stream, stores.ledger)
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("ResourceNotFoundException", "AccessDeniedException"):
            raise
        return ""


def _still_needed(found: Sequence[UnreadableFile], reader: PipelineReader) -> tuple[UnreadableFile, ...]:
    """Return those of the files that the table or the ledger needs even now."""
    live = {task.file.file_path for task in LakeFiles(reader.open_table()).tasks()}
    needed = {file.uri for file in _pending(reader.stores.ledger.shards())} | live
    return tuple(one for one in found if one.uri in needed)


def _pending(entries: Sequence[ShardEntry]) -> list[PendingFile]:
    return [file for entry in entries for file in entry.pending]


def _listed(stream: StreamClient) -> Mapping[str, Sequence[str]]:
    """Return the shards and their parents; none of a stream that is gone, of which nothing more can be read."""
    try:
        return {one.shard_id: one.parents for one in list_shards(stream.kinesis, stream.stream)}
    except ClientError as error:
        if error.response["Error"]["Code"] != "ResourceNotFoundException":
            raise
        return {}


def _states(stores: PipelineStores, entries: Sequence[ShardEntry]) -> list[ShardState]:
    store = StateStore(stores.pipeline, stores.objects)
    return [store.load(entry) for entry in entries]


def lake_freshness(stores: PipelineStores, open_table: OpenTable) -> list[Freshness]:
    """Return for each shard of the pipeline how long its files take to be queryable, and what waits."""
    name = stores.pipeline.lake_to.table
    entries = stores.ledger.shards()
    objects = stores.objects
    dated = ((objects.uri(key), at) for key, _, at in objects.dated(f"lake/{name}/data/"))
    return freshness(open_table(), entries, dated, stores.clock.now_ms())

"""Claim a pipeline's lake table and view names, so that no two pipelines write over each other's files and rows.

Where its events come from and go to is written down beside them, so that no event comes back to where it was.

The files of a lake table and the rows of a view are named after it alone, not after the pipeline. A claim is a document
in the ledger's table, under a hash key that no pipeline can have. It stays until somebody releases it: a pipeline that
is stopped keeps what it wrote.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from headwater.config import Settings
from headwater.errors import UsageError
from headwater.processors.definition.pipeline import Pipeline
from headwater.stores import DocumentStore

__all__ = ["REGISTRY", "ClaimedName", "claim_names", "claimed_names", "release_names"]

REGISTRY = "@names"
"""The hash key of all claims in the ledger's table."""


class _ClaimRegistry(DocumentStore, Protocol):
    def documents(self) -> dict[str, tuple[dict[str, Any], int]]: ...


@dataclass(frozen=True)
class ClaimedName:
    """Hold one claim: what it is of (`table`, `files` or `view`), where that is, its name there, and whose it is.

    A `view table` is a `table`, too, that views write: what a forgotten key is taken out of by dropping it.
    Of a `flow`, which is no claim and may be any number of pipelines', it is the stream that is read and the one that
    events go on to.
    """

    kind: str
    place: str
    name: str
    pipeline: str


def claim_names(pipeline: Pipeline, settings: Settings, bucket: str, registry: _ClaimRegistry) -> None:
    """Claim the pipeline's lake table and its views' names. What it has already stays its own.

    Raises UsageError when another pipeline has one of them, or when events would come back to the pipeline's stream,
    before anything is claimed.
    """
    wanted = list(_names(pipeline, settings, bucket))
    for claim in wanted:
        _check(claim, registry.document(_document(claim))[0])
    flows = f"flow/{settings.stream}/{pipeline.name}"
    if pipeline.streams or registry.document(flows)[0]:  # or it had some
        _refuse_circles(pipeline, settings.stream, registry)
        flow = {"pipeline": pipeline.name, "to": [step.stream for step in pipeline.streams]}
        registry.change(flows, lambda known: None if known == flow else flow)
    for claim in wanted:
        registry.change(_document(claim), partial(_claimed, claim))


def _refuse_circles(pipeline: Pipeline, stream: str, registry: _ClaimRegistry) -> None:
    """Raise UsageError when a stream that events go on to leads back to the one that they come from."""
    flows: dict[str, set[str]] = defaultdict(set)
    for document, (body, _) in registry.documents().items():
        if document.startswith("flow/") and body.get("pipeline") not in (None, pipeline.name):
            flows[document.split("/", 2)[1]].update(body["to"])
    paths = [[stream, step.stream] for step in pipeline.streams]
    seen = set[str]()
    while paths:
        path = paths.pop()
        if path[-1] == stream:
            raise UsageError(
                f"pipeline {pipeline.name}: events of stream {stream} would come back to it, as {' → '.join(path)}"
            )
        if path[-1] not in seen:
            seen.add(path[-1])
            paths += [[*path, after] for after in sorted(flows[path[-1]])]


def _claimed(claim: ClaimedName, known: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the claim's document; None where it is the pipeline's already. Raise UsageError when it is another's."""
    _check(claim, known)
    return None if known.get("pipeline") else {"pipeline": claim.pipeline}


def _names(pipeline: Pipeline, settings: Settings, bucket: str) -> Iterator[ClaimedName]:
    table = pipeline.lake_to.table
    yield ClaimedName("table", settings.database, table, pipeline.name)
    yield ClaimedName("files", bucket, table, pipeline.name)
    for name in sorted({view.table for view in pipeline.definitions if view.table}):
        yield ClaimedName("table", settings.database, name, pipeline.name)
        yield ClaimedName("files", bucket, name, pipeline.name)
        yield ClaimedName("view table", settings.database, name, pipeline.name)
    for name in sorted({view.name for view in pipeline.definitions}):
        yield ClaimedName("view", settings.views_table, name, pipeline.name)


def _check(claim: ClaimedName, known: Mapping[str, Any]) -> None:
    owner = known.get("pipeline", "")
    if not owner or owner == claim.pipeline:
        return
    what = {
        "table": f"lake table {claim.name} of database {claim.place}",
        "files": f"lake table {claim.name} in bucket {claim.place}",
        "view": f"view {claim.name} in table {claim.place}",
        "view table": f"table {claim.name} of a view in database {claim.place}",
    }[claim.kind]
    raise UsageError(
        f"{what} is pipeline {owner}'s, and pipeline {claim.pipeline} would write over it: give it another name, or, "
        f"when pipeline {owner} is gone for good, call headwater names release {owner}"
    )


def _document(claim: ClaimedName) -> str:
    return f"{claim.kind}/{claim.place}/{claim.name}"


def claimed_names(registry: _ClaimRegistry) -> list[ClaimedName]:
    """Return every claim of every pipeline, by kind, place and name."""
    found = []
    for document, (body, _) in sorted(registry.documents().items()):
        if body.get("pipeline"):
            kind, place, name = document.split("/", 2)
            names = body["to"] if kind == "flow" else [name]
            found += [ClaimedName(kind, place, one, str(body["pipeline"])) for one in names]
    return found


def release_names(registry: _ClaimRegistry, pipeline: str) -> int:
    """Release all that the pipeline has claimed; return how many. Its files and rows stay.

    Raises UsageError when it has claimed nothing, and Fenced when somebody changes a claim meanwhile.
    """
    released = 0
    for document, (body, revision) in registry.documents().items():
        if body.get("pipeline") == pipeline:
            # a claim is emptied, not deleted: its revision goes on, so that a claim that was read before is refused
            registry.put_document(document, {}, revision)
            released += 1
    if not released:
        raise UsageError(f"pipeline {pipeline} has claimed nothing; `headwater names list` shows who has what")
    return released

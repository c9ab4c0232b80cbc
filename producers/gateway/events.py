"""Answer POST /v1/events/<contract>: native events as JSON, CSV or Arrow. This endpoint's protocol alone."""

from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from headwater.producers.gateway.app import Gateway, PendingWrite, Submission
from headwater.producers.gateway.bodies import BodyLimits, event_bytes, field_of, format_of, parse_body
from headwater.producers.gateway.identity import IdempotencyKeys, RequestIdentity, refuse_foreign_ids
from headwater.producers.gateway.writer import valid_intervals
from headwater.web.problems import Problem
from headwater.web.tracing import is_sampled

__all__ = ["MAX_ERRORS", "EventsEndpoint"]

MAX_ERRORS = 100
"""Rejected rows that an answer explains; the others are those that `accepted_rows` leaves out."""


class EventsEndpoint:
    """Answer requests with events of one contract each."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        settings = gateway.settings
        self._limits = BodyLimits(settings.max_rows, settings.max_arrow_rows)
        self._keys = IdempotencyKeys()

    async def handle(self, request: Request, traceparent: str | None) -> Response:
        """Answer one request once its events are safe; Problem otherwise."""
        gateway, name = self._gateway, request.path_params["contract"]
        caller = await gateway.authenticate(request.headers)
        writer = gateway.writer_for(caller, name)
        kind = format_of(request.headers.get("content-type", ""))
        identity = RequestIdentity.from_headers(request.headers)

        def read(text: bytes, _: int) -> Submission:
            parsed = refuse_foreign_ids(caller, writer.contract, parse_body(text, kind, writer.contract, self._limits))
            if identity.key is not None:
                self._keys.check(caller.id, name, identity.key, text)
            first = identity.first_identity(caller.id, name, text, parsed)
            if first is not None and writer.contract.id is not None:
                # the events' own ids are their identity; an Idempotency-Key does no harm, an origin is a mistake
                if identity.key is None:
                    raise Problem(400, "invalid-header", f"events of {name} have ids of their own: send no origin")
                first = None
            return Submission(writer, parsed, first)

        async with gateway.receive(request) as body:
            submission = await gateway.parse(body, partial(event_bytes, kind=kind, most_rows=self._limits.rows), read)
            # only a trace that somebody records is worth a batch of its own
            pending = await gateway.write(caller, submission, traceparent if is_sampled(traceparent) else None)
            await gateway.confirm(body, pending)
            return self._answer(pending)

    def _answer(self, pending: PendingWrite) -> Response:
        parsed, identity = pending.submission.parsed, pending.submission.identity
        outbox = bool(self._gateway.settings.outbox)
        answer: dict[str, Any] = {"accepted": parsed.table.num_rows, "rejected": len(parsed.invalid)}
        answer["in"] = "outbox" if outbox else "stream"
        if identity is not None:
            answer |= {"origin": identity[0], "first_seq": identity[1]}
        if not parsed.invalid:
            return JSONResponse(answer, 202 if outbox else 200)
        errors = [
            {"row": one.index, "detail": one.reason} | ({"field": name} if (name := field_of(one.reason)) else {})
            for one in parsed.invalid[:MAX_ERRORS]
        ]
        if not parsed.table.num_rows:
            first = f"nothing was accepted; row {parsed.invalid[0].index}: {parsed.invalid[0].reason}"
            raise Problem(422, "invalid-events", first, accepted=0, rejected=len(parsed.invalid), errors=errors)
        return JSONResponse(answer | {"accepted_rows": valid_intervals(parsed), "errors": errors}, 207)

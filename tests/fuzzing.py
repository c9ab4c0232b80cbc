"""A fuzzer over a kept corpus: `python -m tests.fuzzing SECONDS`, or `make fuzz`; the tests run a few seconds of it.

Each target reads bytes of others and is total: whatever they are, it ends in rows, refusals or dead letters, and loses
no event in between. An input that has a target say something that no input in `tests/corpus` has it say is kept there,
so that the next run begins from it; one that breaks a rule is kept too, and fails the tests until the code is mended.
"""

import hashlib
import re
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random

from headwater.codec import Decoded, decode_record
from headwater.config import GatewaySettings
from headwater.contract import load_contract
from headwater.errors import InvalidRecord
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.engine.engine import Engine
from headwater.processors.engine.state import ShardState
from headwater.processors.operators.enrich import ReferenceTable
from headwater.producers.gateway.bodies import BodyLimits, ParsedBody, parse_body
from headwater.producers.gateway.otlpbodies import parse_export
from headwater.stream.record import StreamRecord
from headwater.web.problems import Problem

__all__ = ["CORPUS", "TARGETS", "inputs", "mutated", "said"]

Target = Callable[[bytes], set[str]]
CORPUS = Path(__file__).with_name("corpus")
TELEMETRY = load_contract("telemetry")
PIPELINE = Pipeline("fuzzed", TELEMETRY).lake("fuzzed")
NOW_MS = 1_772_366_400_000
_WORDS = (b"null", b"-1", b"1e999", b"9" * 20, b'"\\ud800"', b"\xff" * 4, b"\0\0\0\x80", b"[", b"{", b'"', b",", b"")
_WORD = re.compile(r"[a-z]+")


def said(reason: str) -> str:
    """The end of a reason, which has little that is different in each input."""
    return " ".join(_WORD.findall(reason)[-3:])


def _decoder(data: bytes) -> set[str]:
    try:
        found = decode_record(data, TELEMETRY)
    except InvalidRecord as error:
        return {said(str(error))}
    invalid = getattr(found, "invalid", ())
    if isinstance(found, Decoded):
        assert found.table.num_rows + len(invalid) == found.total
    return {type(found).__name__, *(said(row.reason) for row in invalid[:50])}


def _no_reference(name: str, uri: str) -> ReferenceTable:
    raise LookupError(name, uri)


def _engine(data: bytes) -> set[str]:
    """The same record twice: the second may change nothing but the counts of what has no identity."""
    engine = Engine(PIPELINE, "shard-0", ShardState(PIPELINE), _no_reference)
    for number in (1, 2):
        effects = engine.process([StreamRecord("shard-0", str(number), NOW_MS + number, "k", data)])
    counts = engine.state.counts
    told = {name: counts.get(name, 0) for name in ("events", "duplicates", "lake", "filtered", "dead_events")}
    assert told["events"] - told["duplicates"] == told["lake"] + told["filtered"] + told["dead_events"], told
    assert ShardState.loads(PIPELINE, engine.state.dumps()).counts == counts
    return {*counts, *(said(letter.reason) for letter in effects.letters[:50])}


def _taken(read: Callable[[bytes], ParsedBody], data: bytes) -> set[str]:
    """Return what a reader of the gateway makes of a body; it refuses by a status of the client's own."""
    try:
        found = read(data)
    except Problem as problem:
        if problem.status >= 500:
            raise
        return {said(str(problem.detail))}
    assert found.table.num_rows + len(found.invalid) == found.total
    return {"rows", *(said(row.reason) for row in found.invalid[:50])}


def _body(kind: str) -> Target:
    return partial(_taken, lambda data: parse_body(data, kind, TELEMETRY, BodyLimits()))


def _export(signal: str, *, in_json: bool) -> Target:
    contract, limits = load_contract(f"otel_{signal}"), GatewaySettings()
    return partial(_taken, lambda data: parse_export(data, in_json, contract, limits, NOW_MS))


TARGETS: dict[str, Target] = {
    "decoder": _decoder,
    "engine": _engine,
    **{f"body-{kind}": _body(kind) for kind in ("json", "ndjson", "csv", "arrow")},
    **{f"otlp-{signal}": _export(signal, in_json=False) for signal in ("metrics", "logs", "spans")},
    "otlp-json": _export("logs", in_json=True),
}


def inputs(target: str) -> list[bytes]:
    """The target's corpus; the engine reads what the decoder reads."""
    folders = ("decoder", "engine") if target == "engine" else (target,)
    return [file.read_bytes() for folder in folders for file in sorted((CORPUS / folder).glob("*"))]


def mutated(data: bytes, others: list[bytes], random: Random) -> bytes:
    """The bytes with one to eight changes: bits, cuts, copies, words, and pieces of other inputs."""
    made = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 4, 8))):
        at, size = random.randrange(len(made) + 1), random.choice((1, 4, 16, 64))
        other = random.choice(others)
        start = random.randrange(len(other) + 1)
        match random.randrange(6):
            case 0:
                made[at : at + 1] = bytes([random.randrange(256)])
            case 1:
                del made[at : at + size]
            case 2:
                made[at:at] = made[at : at + size]
            case 3:
                made[at : at + size] = random.choice(_WORDS)
            case 4:
                made[at:at] = other[start : start + size]
            case _:
                made[at:] = other[start:]
    return bytes(made[: 1 << 16])


def _runs(seconds: float, random: Random) -> Iterator[str]:
    """Fuzz all targets in turn, keep what is new, and yield a line for each input that breaks a rule."""
    corpora = {name: inputs(name) for name in TARGETS}
    heard = {name: set[str]().union(*map(target, corpora[name])) for name, target in TARGETS.items()}
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for name, target in TARGETS.items():
            data = mutated(random.choice(corpora[name]), corpora[name], random)
            try:
                new = target(data) - heard[name]
            except Exception as error:  # what a target may not do
                _keep(name, data)
                yield f"{name}: {type(error).__name__}: {error}"
                continue
            if new:
                heard[name] |= new
                corpora[name].append(data)
                _keep(name, data)


def _keep(target: str, data: bytes) -> None:
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)


def main() -> None:
    """Fuzz for so many seconds; exit with 1 when a rule was broken."""
    seed = time.time_ns()
    sys.stdout.write(f"seed {seed}\n")
    broken = 0
    for line in _runs(float(sys.argv[1]), Random(seed)):
        broken += 1
        sys.stdout.write(line + "\n")
    sys.exit(broken > 0)


if __name__ == "__main__":
    main()

"""The data dictionary: every column of every contract, as a page of Markdown."""

from collections.abc import Iterable

from headwater.contract.definition import MAX_TEXT_BYTES, Contract, Field

__all__ = ["dictionary"]

_OURS = (
    ("_origin", "string", "Where the event was numbered: the producer's session, its own id, or shard and record."),
    ("_seq", "long", "The event's number at its origin."),
    ("_arrived_at", "timestamp", "When the stream took the event."),
)


def dictionary(contracts: Iterable[Contract]) -> str:
    """Write a table for each contract, in the order given, then the columns that every lake table has."""
    lines = ["# Data dictionary", "", "Made by `headwater contract dictionary`; not to be edited.", ""]
    for contract in contracts:
        lines += [f"## {contract.name}, version {contract.version}", ""]
        lines += [contract.description, ""] if contract.description else []
        lines += [f"Key `{contract.key}`, event time `{contract.time}`.", ""]
        lines += ["| column | type | required | unit | meaning |", "| --- | --- | --- | --- | --- |"]
        lines += [_row(field) for field in contract.fields]
        lines.append("")
    lines += ["## Every table", "", "| column | type | meaning |", "| --- | --- | --- |"]
    lines += [f"| `{name}` | {kind} | {text} |" for name, kind, text in _OURS]
    return "\n".join(lines) + "\n"


def _row(field: Field) -> str:
    notes = [field.doc] if field.doc else []
    if field.minimum is not None or field.maximum is not None:
        notes.append(f"From {field.minimum} to {field.maximum}.".replace("None", "any"))
    if field.max_bytes != MAX_TEXT_BYTES:
        notes.append(f"At most {field.max_bytes:,} bytes.")
    if field.values:
        notes.append("One of " + ", ".join(map(str, field.values)) + ".")
    if field.was:
        notes.append("Earlier: " + ", ".join(field.was) + ".")
    cells = (f"`{field.name}`", field.type, "yes" if field.required else "no", field.unit, " ".join(notes))
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

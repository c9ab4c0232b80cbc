"""Figures, times and names as words that fit a table."""

from datetime import UTC, datetime

from sinks.deadletter import DeadLetter

__all__ = ["age", "behind", "clock_time", "figure", "letter_name", "letter_text", "moment", "ranges", "short", "size"]

_UP_TO_DATE_MS = 1_000


def age(milliseconds: float | None) -> str:
    """A length of time."""
    if milliseconds is None:
        return "–"
    seconds = max(0.0, milliseconds) / 1000
    if seconds < 1:
        return f"{milliseconds:.0f} ms"
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def behind(milliseconds: float | None) -> str:
    """How old the oldest is that waits; nothing to say where nobody knows."""
    if milliseconds is None:
        return "–"
    return "up to date" if milliseconds < _UP_TO_DATE_MS else f"{age(milliseconds)} behind"


def size(count: float) -> str:
    """Bytes, in the unit that fits."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count:.0f} B"


def figure(value: float) -> str:
    """A number with five digits or so, and never an exponent where one can read it without."""
    if isinstance(value, int) or (value.is_integer() and abs(value) < 1e15):
        return f"{int(value):,}"
    if not 1e-3 <= abs(value) < 1e15:
        return f"{value:.4g}"
    return f"{value:,.{max(0, 5 - len(str(int(abs(value)))))}f}"


def moment(milliseconds: int | None) -> str:
    """A point in time, UTC."""
    if milliseconds is None:
        return "–"
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def clock_time(milliseconds: int) -> str:
    """A point in time of today, UTC."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%H:%M:%S UTC")


def short(name: str, most: int = 12) -> str:
    """A shard's number; of other long names the beginning and the end."""
    if name.startswith("shardId-"):
        return name.removeprefix("shardId-").lstrip("0") or "0"
    return name if len(name) <= most else f"{name[: most // 2]}…{name[-(most // 2 - 1) :]}"


def ranges(intervals: "tuple[tuple[int, int], ...] | list[tuple[int, int]]", most: int = 5) -> str:
    """Missing intervals by number, both ends included."""
    shown = [str(start) if stop == start + 1 else f"{start}–{stop - 1}" for start, stop in intervals[:most]]
    return ", ".join(shown) + (f" and {len(intervals) - most} more" if len(intervals) > most else "")


def letter_name(letter: DeadLetter) -> str:
    """As `headwater dlq list` names it."""
    return f"{letter.shard_id}:{letter.sequence_number}" + ("" if letter.index is None else f":{letter.index}")


def letter_text(letter: DeadLetter, most: int = 160) -> str:
    """The payload's beginning as text, and how much there is where that is not all."""
    text = letter.payload[:most].decode(errors="replace")
    shown = "".join(one if one.isprintable() or one == "\n" else "·" for one in text)
    return shown + (f" … ({size(len(letter.payload))} in all)" if len(letter.payload) > most else "")

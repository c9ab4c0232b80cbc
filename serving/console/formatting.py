"""Format figures, times and names so that they fit a table. Pure."""

from datetime import UTC, datetime

from botocore.exceptions import BotoCoreError, ClientError

from headwater.errors import HeadwaterError
from headwater.sinks.deadletter import DeadLetter

__all__ = [
    "age",
    "behind",
    "clock_time",
    "failure",
    "figure",
    "legible",
    "letter_text",
    "moment",
    "ranges",
    "short",
    "size",
]

_UP_TO_DATE_MS = 1_000
_LONGEST_FAILURE = 300
_TURNING = dict.fromkeys([0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)], "·")
"""Unicode's marks that turn the direction of the text behind them: https://www.unicode.org/reports/tr9/"""


def age(milliseconds: float | None) -> str:
    """Return a length of time in the unit that fits.

    >>> age(150_000)
    '2 min'
    """
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
    """Return the age of the oldest event that waits, a dash when it is not known."""
    if milliseconds is None:
        return "–"
    return "up to date" if milliseconds < _UP_TO_DATE_MS else f"{age(milliseconds)} behind"


def size(count: float) -> str:
    """Return a number of bytes in the unit that fits.

    >>> size(1_500_000)
    '1.5 MB'
    """
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count:.0f} B"


def figure(value: float) -> str:
    """Return a number with about five digits, without an exponent as long as it stays readable.

    >>> figure(329.0306)
    '329.03'
    """
    if isinstance(value, int) or (value.is_integer() and abs(value) < 1e15):
        return f"{int(value):,}"
    if not 1e-3 <= abs(value) < 1e15:
        return f"{value:.4g}"
    return f"{value:,.{max(0, 5 - len(str(int(abs(value)))))}f}"


def moment(milliseconds: int | None) -> str:
    """Return a point in time in UTC, a dash when there is none."""
    if milliseconds is None:
        return "–"
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def legible(text: str) -> str:
    """Return a text of others without marks that turn around what is shown behind it.

    >>> legible("exe.\u202egpj")
    'exe.·gpj'
    """
    return text.translate(_TURNING)


def clock_time(milliseconds: int) -> str:
    """Return the time of day in UTC."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%H:%M:%S UTC")


def short(name: str, most: int = 12) -> str:
    """Return a shard's number, or the beginning and the end of another long name.

    >>> short("shardId-000000000007")
    '7'
    """
    if name.startswith("shardId-"):
        return name.removeprefix("shardId-").lstrip("0") or "0"
    return name if len(name) <= most else f"{name[: most // 2]}…{name[-(most // 2 - 1) :]}"


def ranges(intervals: "tuple[tuple[int, int], ...] | list[tuple[int, int]]", most: int = 5) -> str:
    """Return half-open intervals as numbers, both ends included.

    >>> ranges(((3, 4), (7, 10)))
    '3, 7–9'
    """
    shown = [str(start) if stop == start + 1 else f"{start}–{stop - 1}" for start, stop in intervals[:most]]
    return ", ".join(shown) + (f" and {len(intervals) - most} more" if len(intervals) > most else "")


def failure(error: BaseException) -> str:
    """Return one line that says what went wrong, without an address or an account of AWS.

    >>> failure(ValueError("a\\nb"))
    'ValueError: a b'
    """
    match error:
        case ClientError():
            text = f"AWS refuses {error.operation_name}: {error.response.get('Error', {}).get('Code', 'unknown')}"
        case BotoCoreError() | OSError():
            text = "AWS does not answer"
        case HeadwaterError():
            text = " ".join(str(error).split())
        case _:
            text = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return text if len(text) <= _LONGEST_FAILURE else text[:_LONGEST_FAILURE] + "…"


def letter_text(letter: DeadLetter, most: int = 160) -> str:
    """Return the beginning of a payload as text, and its size when there is more."""
    text = letter.payload[:most].decode(errors="replace")
    shown = "".join(one if one.isprintable() or one == "\n" else "·" for one in text)
    return shown + (f" … ({size(len(letter.payload))} in all)" if len(letter.payload) > most else "")

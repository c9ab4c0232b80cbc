"""Order the values of a view's slot: first by input, then by the epoch of the owner that computed them. No I/O."""

from dataclasses import dataclass
from typing import Any

__all__ = ["Slot", "Upsert", "epoch_of", "slot_condition", "slot_version"]

_EPOCH = "@"
"""Between the input and the epoch of a version. Inputs have one width, so a version without an epoch sorts below."""


@dataclass(frozen=True)
class Upsert:
    """Give a slot its new partial aggregate.

    `version` names the last record in it and the epoch of the shard's owner, as `slot_version` makes it, so that
    versions compare as text: first by input, then by epoch. `through` is the padded sequence number up to which the
    owner has taken records in, which may be beyond the last one in this slot; empty where that is not known. Window
    bounds are epoch ms, None in a view without windows.
    """

    key: tuple[object, ...]
    window_start_ms: int | None
    window_end_ms: int | None
    slot: str
    version: str
    partial: bytes
    through: str = ""

    def supersedes(self, held: str) -> bool:
        """Return True when the slot is to replace one that is held in this version.

        A newer version does. So does a later owner's, whatever its version, once it has taken in every record that
        the held one may have: by a deployment with other functions, another record may be the slot's last.
        """
        return self.version > held or (epoch_of(held) < epoch_of(self.version) and _input(held) <= self.through)

    def is_behind(self, held: str) -> bool:
        """Return True when an earlier owner's slot is held that has records this owner has not taken in yet."""
        return not self.supersedes(held) and epoch_of(held) < epoch_of(self.version)


@dataclass(frozen=True)
class Slot:
    """Hold a slot as it is stored: version and partial aggregate."""

    version: str
    partial: bytes


def slot_version(sequence_number: str, epoch: int) -> str:
    """Return the version of a slot whose last record has this padded sequence number, by an owner of this epoch.

    Versions of rows written before epochs were a part of them, and of rows of a rebuild, are the sequence number
    alone: below those of every epoch for the same input.

    >>> slot_version("0" * 55 + "7", 3) > "0" * 55 + "7"
    True
    """
    return f"{sequence_number}{_EPOCH}{epoch:010d}"


def epoch_of(version: str) -> int:
    """Return the epoch of a version; 0 for one without."""
    return int(version.partition(_EPOCH)[2] or 0)


def _input(version: str) -> str:
    """Return the sequence number of a version."""
    return version.partition(_EPOCH)[0]


def slot_condition(upsert: Upsert) -> dict[str, Any]:
    """Return the condition under which `slot_item` may be put, as `Upsert.supersedes` says."""
    text = "attribute_not_exists(pk) OR v < :v"
    values = {":v": {"S": upsert.version}}
    epoch = epoch_of(upsert.version)
    if epoch and upsert.through:
        # "~" is above every digit, so this bound is above all versions of inputs up to `through`
        text += " OR ((attribute_not_exists(e) OR e < :e) AND v < :t)"
        values |= {":e": {"N": str(epoch)}, ":t": {"S": f"{upsert.through}{_EPOCH}~"}}
    return {"ConditionExpression": text, "ExpressionAttributeValues": values}

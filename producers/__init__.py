"""Client library: `from producers import Producer`. Loaded on first use."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from producers.producer import Producer, ProducerSettings, ProducerStats, Receipt

__all__ = ["Producer", "ProducerSettings", "ProducerStats", "Receipt"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from producers import producer

    return getattr(producer, name)

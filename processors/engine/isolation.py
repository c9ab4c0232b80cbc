"""Find the record that the engine fails on, and bury it, so that its shard goes on.

The engine is meant to be total. Should some record make it raise after all, nobody knows what of its state has changed
by then: the worker goes back to its last commit, and takes the records of the failed call in from here: halved until
one is left that fails alone, from a copy of the state that was made before it.
"""

from collections.abc import Sequence

from headwater.processors.engine.engine import Effects, Engine
from headwater.processors.engine.state import ShardState
from headwater.stream.record import StreamRecord

__all__ = ["take_in_isolated"]


def take_in_isolated(
    engine: Engine, records: Sequence[StreamRecord], outside: tuple[type[Exception], ...]
) -> list[Effects]:
    """Take in the first of the records, one of which the engine fails on, which ends as a dead letter.

    Returns effects whose `taken` add up to the records that were taken in. The engine's state is replaced. Errors of
    the kinds in `outside` say nothing about a record, as those of a reference table's store, and are raised.
    """
    before = engine.state.dumps()
    try:
        return [engine.process(records)]
    except outside:
        raise
    except Exception as error:  # whatever it is, it is the record's
        kept = engine.pipeline.having([view.view for view in engine.state.views.values()])
        engine.state = ShardState.loads(kept, before)
        if len(records) == 1:
            return [engine.bury(records[0], f"the processor fails on it: {type(error).__name__}: {error}"[:500])]
    middle = len(records) // 2
    first = take_in_isolated(engine, records[:middle], outside)
    if sum(one.taken for one in first) < middle:
        return first  # there is no room for more before a commit
    return first + take_in_isolated(engine, records[middle:], outside)

"""Quotas of keys, where requests and the giving back of what is not used meet."""

from threading import Event, Thread

from headwater.web.auth import Principal
from headwater.web.limits import Limits

CALLER = Principal("key", frozenset({"*"}), events_per_day=10)


class SlowCounter:
    """Counts one key's events, and takes its time to give some back."""

    def __init__(self) -> None:
        self.used = 0
        self.giving, self.go_on = Event(), Event()

    def reserve_usage(self, _key_id: str, _day: str, least: int, most: int, limit: int) -> int:
        found = next((events for events in (most, least) if self.used + events <= limit), 0)
        self.used += found
        if not found:
            self.go_on.set()
        return found

    def add_usage(self, _key_id: str, _day: str, events: int) -> int:
        self.giving.set()
        assert self.go_on.wait(10)
        self.used += events
        return self.used


def test_what_is_being_given_back_is_there_for_the_next() -> None:
    """A request that comes while unused quota is on its way to the counter is not refused for the day."""
    counter = SlowCounter()
    limits = Limits(counter)
    limits.take_quota(CALLER, 10, 0)
    limits.give_back_quota(CALLER, 10, 0)
    sync = Thread(target=lambda: limits.sync(all_of_it=True))
    sync.start()
    assert counter.giving.wait(10)
    limits.take_quota(CALLER, 10, 0)
    sync.join()
    assert counter.used == 10

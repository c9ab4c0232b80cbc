"""Follow the process: begin anew in a forked child, and deliver what is possible before an end without `close`.

A fork copies memory but no threads: a child's copy of a sender would take events that nobody sends, share sockets with
its parent, and write to an outbox file whose lock only the parent holds. So a child leaves all of that untouched and
begins with a session, a thread and a client of its own.

Here is the only state that belongs to the process and not to an object: which senders run, for the hooks of `os` and
`atexit`, of which a process has one each. What is sent, and how, is the sender's.
"""

import atexit
import ctypes
import logging
import os
import sys
import time
from collections.abc import Callable
from random import Random, SystemRandom
from threading import Lock
from typing import Any
from weakref import WeakSet

from headwater.arguments import shown
from headwater.errors import UsageError
from headwater.producers.sender import Sender
from headwater.producers.settings import ProducerStats

__all__ = ["EXIT_SECONDS", "ProcessSender", "connector"]

log = logging.getLogger("headwater.producer")

EXIT_SECONDS = 5.0
"""Longest time that a process that ends without `close` waits for its producers, all of them together."""

_FORK_SECONDS = 5.0
"""Longest wait of a fork for senders at work: longer than any step without a call of Kinesis."""

_LIBRARIES = ("multiprocessing.util", "billiard.util")

Begin = Callable[[Random | None], Sender]


def connector(client: Any, default: Callable[[], Any]) -> tuple[Callable[[], Any], str]:
    """Return what makes a client in any process, and why a forked child cannot use it, empty when it can.

    `client` is None for `default`, a client, or a function that makes one.
    """
    if client is None:
        return default, ""
    if not hasattr(client, "put_records"):
        if not callable(client):
            right = "a boto3 client of Kinesis, or a function that makes one"
            raise UsageError(f"client must be {right}, not {shown(client)}")
        return client, ""
    return (
        lambda: client,
        "its client and the client's connections belong to that process; pass a function that "
        "makes a client (client=lambda: boto3.client('kinesis')), or none",
    )


class ProcessSender:
    """Hold the sender of this process. Thread-safe.

    `begin` makes and starts a sender; it is given a source of randomness in a forked child, where the producer's own
    would repeat what the parent draws. `refusal` says why a forked child cannot have one.
    """

    def __init__(self, begin: Begin, name: str, refusal: str) -> None:
        self._begin, self._name, self._refusal = begin, name, refusal
        self._lock = Lock()
        self._pid = os.getpid()
        self.present: Sender | None = begin(None)
        """None in a forked child that has put nothing yet."""
        _PROCESS.add(self, self.present)

    def current(self) -> Sender:
        """Return this process's sender, begun now where there is none. UsageError where a child cannot have one."""
        if self.present is not None:
            return self.present
        with self._lock:
            if self.present is None:
                if self._refusal:
                    raise UsageError(
                        f"{self._name}: the producer was made in process {self._pid}, and this is a fork of it: "
                        f"{self._refusal}; or make the producer after the fork"
                    )
                self.present = self._begin(SystemRandom())
                _PROCESS.add(self, self.present)
            return self.present

    @property
    def stats(self) -> ProducerStats:
        """Return the counts of this process's sender."""
        return self.present.stats if self.present is not None else ProducerStats()

    def flush(self, timeout: float | None = None) -> None:
        """Flush this process's sender: a forked child that has put nothing has nothing to wait for."""
        if self.present is not None:
            self.present.flush(timeout)

    def close(self) -> None:
        """Close this process's sender, if there is one."""
        if self.present is not None:
            self.present.close()

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("a producer belongs to the process that made it: make one in each process")

    def leave_to_parent(self) -> None:
        """Forget the parent's sender, in a child just forked: it is neither used nor closed here."""
        self._lock = Lock()  # a thread that does not exist here may have held it
        if self.present is not None and not self.present.closed:
            # Never freed: closing a copy of the parent's SQLite connection would write to the parent's file.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self.present))
            self.present = None


class _Process:
    """Keep the senders of this process for its hooks."""

    def __init__(self) -> None:
        self._holders: WeakSet[ProcessSender] = WeakSet()
        self._senders: list[Sender] = []
        self._followed = set[str]()
        self._follows_celery = False
        self._held = list[Any]()
        os.register_at_fork(before=self._before, after_in_parent=self._in_parent, after_in_child=self._in_child)
        atexit.register(self.drain)

    def add(self, holder: ProcessSender, sender: Sender) -> None:
        """Follow a sender until it is closed, whether or not the application still holds its producer."""
        self._senders = [one for one in self._senders if not one.closed] + [sender]
        self._holders.add(holder)
        for name in _LIBRARIES:
            module = sys.modules.get(name)
            if module is not None and name not in self._followed:
                self._followed.add(name)
                module.register_after_fork(self, _Process._finalize)
                module.Finalize(None, self.drain, exitpriority=100)

        signals = sys.modules.get("celery.signals")
        if signals is not None and not self._follows_celery:
            self._follows_celery = True  # its workers end by os._exit, after this signal
            signals.worker_process_shutdown.connect(lambda **_: self.drain(), weak=False)

    def _finalize(self) -> None:
        """Drain before a worker ends: one of these libraries ends without `atexit`, and runs finalizers of its own.

        A worker forgets the finalizers that it has when it begins, so they are registered once more then.
        """
        for name in self._followed:
            sys.modules[name].Finalize(None, self.drain, exitpriority=100)

    def drain(self) -> None:
        """Deliver what is possible in `EXIT_SECONDS`, and say what is lost."""
        until = time.monotonic() + EXIT_SECONDS
        senders, self._senders = self._senders, []
        for sender in senders:
            _drain(sender, max(0.1, until - time.monotonic()))

    def _before(self) -> None:
        until = time.monotonic() + _FORK_SECONDS
        locks = [sender.loop.at_work for sender in self._senders]
        locks += [sender.outbox.lock for sender in self._senders if sender.outbox is not None]
        self._held = [one for one in locks if one.acquire(timeout=max(0.0, until - time.monotonic()))]

    def _in_parent(self) -> None:
        for one in self._held:
            one.release()

    def _in_child(self) -> None:
        self._senders = []
        for holder in list(self._holders):
            holder.leave_to_parent()


def _drain(sender: Sender, seconds: float) -> None:
    if sender.closed:
        return
    reason = ""
    try:
        sender.flush(seconds)
    except Exception as error:  # whatever it is, the other producers have their turn
        reason = f": {error}"
    left = sender.stop()
    if reason and sender.outbox is not None:
        log.error("%s ended without close(); the outbox %s has the rest%s", sender.name, sender.outbox.path, reason)
    elif reason:
        log.error("%s ended without close(), and %d events are lost%s", sender.name, left, reason)


_PROCESS = _Process()

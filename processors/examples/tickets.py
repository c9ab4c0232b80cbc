"""Subscribe to alerts: open a ticket for each episode, and close it when the alert is cleared.

    python -m headwater.processors.examples.tickets --queue URL --table headwater-tickets

Reads an SQS queue that alerts come to directly, through an SNS topic or by a rule of EventBridge. A ticket is a
DynamoDB item whose key is the episode. Both writes may be repeated and may come in either order with the same outcome,
so a message is deleted only after its write and may come any number of times. A message that cannot be read, or that
the table refuses for what is in it, stays in the queue for the redrive policy to move.
"""

import argparse
import json
import logging
import signal
import sys
from collections.abc import Mapping, Sequence
from threading import Event
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from headwater import Settings
from headwater.aws import client
from headwater.telemetry.logs import to_stdout

__all__ = ["Tickets", "alert_in", "main"]

log = logging.getLogger("headwater.tickets")
_KINDS = {"headwater.alert.raised": "opened", "headwater.alert.cleared": "closed"}
_TEXTS = ("episode", "since", "at", "rule", "summary", "condition")
_LONGEST_EPISODE = 2_048
"""Bytes of a DynamoDB hash key
(https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html); it is not empty either."""


def alert_in(body: str) -> Mapping[str, Any]:
    """Return the event in a message, whichever way it came; raise ValueError when there is none."""
    found: Any = json.loads(body)
    if isinstance(found, dict) and found.get("Type") == "Notification":  # SNS, without raw delivery
        found = json.loads(str(found.get("Message")))
    if isinstance(found, dict) and "detail-type" in found:  # EventBridge
        found = found.get("detail")
    if not isinstance(found, dict) or found.get("type") not in list(_KINDS) or not isinstance(found.get("data"), dict):
        raise ValueError("no event of an alert")
    texts = {name: found["data"].get(name) for name in _TEXTS}
    texts |= {"id": found.get("id"), "subject": found.get("subject", "")}  # an empty key is no subject of an event
    if wrong := [name for name, value in texts.items() if not isinstance(value, str)]:
        raise ValueError(f"an event of an alert without {', '.join(wrong)}")
    if not 1 <= len(texts["episode"].encode("utf-8", "surrogatepass")) <= _LONGEST_EPISODE:
        raise ValueError("an event of an alert whose episode is empty or too long")
    return found


class Tickets:
    """Keep tickets by the messages of a queue. The queue and the table must exist."""

    def __init__(self, sqs: Any, dynamodb: Any, queue: str, table: str) -> None:
        self._sqs, self._dynamodb = sqs, dynamodb
        self._queue, self._table = queue, table

    def poll(self, wait_seconds: int = 20) -> int:
        """Handle up to ten messages of the queue; return how many were handled."""
        answer = self._sqs.receive_message(QueueUrl=self._queue, MaxNumberOfMessages=10, WaitTimeSeconds=wait_seconds)
        handled = 0
        for message in answer.get("Messages", ()):
            try:
                self.handle(alert_in(message["Body"]))
            except (ValueError, ClientError) as error:
                if isinstance(error, ClientError) and error.response["Error"]["Code"] != "ValidationException":
                    raise  # the table's fault, not the message's
                log.warning("left in the queue", extra={"message_id": message["MessageId"], "reason": str(error)})
                continue
            self._sqs.delete_message(QueueUrl=self._queue, ReceiptHandle=message["ReceiptHandle"])
            handled += 1
        return handled

    def handle(self, event: Mapping[str, Any]) -> bool:
        """Open or close the event's ticket; return True when the event was new.

        A ticket that is closed before it is opened stays closed: messages may come in any order.
        """
        data, what = event["data"], _KINDS[event["type"]]
        # an `opened` that comes after its `closed` must not open the ticket again
        status = "if_not_exists(#s, :open)" if what == "opened" else ":closed"
        values = {
            ":at": data["since"] if what == "opened" else data["at"],
            ":alert": data["rule"],
            ":key": event.get("subject", ""),
            ":summary": data["summary"] or data["condition"],
            (":open" if what == "opened" else ":closed"): "open" if what == "opened" else "closed",
        }
        before = self._dynamodb.update_item(
            TableName=self._table,
            Key={"ticket": {"S": data["episode"]}},
            UpdateExpression=f"SET #s = {status}, {what}_at = :at, alert = :alert, "
            "alert_key = :key, summary = :summary",
            ExpressionAttributeNames={"#s": "status"},
            ExpressionAttributeValues={name: {"S": value} for name, value in values.items()},
            ReturnValues="ALL_OLD",
        ).get("Attributes", {})
        new = f"{what}_at" not in before
        log.info(f"ticket {what}" if new else "known already", extra={"ticket": data["episode"], "id": event["id"]})
        return new


def main(arguments: Sequence[str] | None = None) -> None:
    """Handle messages until SIGTERM or SIGINT, after which those already received are still handled.

    With `--once` it ends when the queue gives nothing.
    """
    parser = argparse.ArgumentParser(prog="tickets", description="Opens a ticket for each episode of an alert.")
    parser.add_argument("--queue", required=True, help="URL of the SQS queue")
    parser.add_argument("--table", default="headwater-tickets", help="DynamoDB table; hash key `ticket`, a string")
    parser.add_argument("--once", action="store_true", help="end when the queue gives nothing")
    given = parser.parse_args(arguments)
    settings, stop = Settings(), Event()
    to_stdout(settings.log_level, sys.stdout)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    tickets = Tickets(client("sqs", settings), client("dynamodb", settings), given.queue, given.table)
    while not stop.is_set():
        try:
            if not tickets.poll(0 if given.once else 20) and given.once:
                return
        except (ClientError, BotoCoreError) as error:
            if given.once:
                raise SystemExit(f"tickets: {error}") from None
            log.warning("will try again", extra={"reason": str(error)})
            stop.wait(5.0)


if __name__ == "__main__":
    main()

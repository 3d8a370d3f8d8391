"""What goes on while the demo serves: stories unfold through Kafka at a human pace until it is told to stop.

Knows the stories and the clock on the wall. Decides nothing and listens to nothing: who watches sees it in the console.
"""

import threading
from collections.abc import Sequence
from datetime import datetime

from kafka import KafkaProducer
from kafka.errors import KafkaError
from rich.console import Console

from fraudguard.clock import Clock
from fraudguard.config import Settings
from fraudguard.domain import Transaction
from fraudguard.errors import ServiceFailed
from fraudguard.events.schema import encode
from fraudguard.events.topics import MESSAGES, TRANSACTIONS
from fraudguard.stories import Moment, unfold
from fraudguard.stories.people import Person

SEED = 14  # whose first two scams alarm before their payment; the summary of the day has the honest shares
CLOSE_S = 5.0


def unfold_live(
    settings: Settings, people: Sequence[Person], console: Console, clock: Clock, stopped: threading.Event
) -> None:
    """Send one event after the other when it is due, dated now, until stopped. Raises ServiceFailed without Kafka.

    Ids carry the moment of the start, so no run repeats another one's.
    """
    run = f"live{int(clock.now().timestamp()):x}"
    try:
        producer = KafkaProducer(bootstrap_servers=settings.kafka_bootstrap, acks="all", linger_ms=0)
        try:
            second = 0.0
            for moment in unfold(people, SEED, run, "heldout"):
                if stopped.wait(moment.second - second):
                    return
                second, now = moment.second, clock.now()
                event = moment.event.model_copy(update={"event_time": now})
                topic = TRANSACTIONS if event.type == "transaction" else MESSAGES
                producer.send(topic, key=event.account_id.encode(), value=encode(event))
                for line in _said(moment, now):
                    console.print(line, highlight=False, markup=False, soft_wrap=True)
        finally:
            producer.close(timeout=CLOSE_S)
    except KafkaError as error:
        raise ServiceFailed(f"the stories cannot go on: {error}") from error


def _said(moment: Moment, now: datetime) -> list[str]:
    """What the terminal says: where a scam begins, and where its money leaves."""
    story, event = moment.story, moment.event
    if story is None or story.typology is None:
        return []
    at = f"{now.astimezone():%H:%M:%S}"
    said = [f"{at}  a scam begins at account {story.account_id}: {story.title}"] * (
        event.event_id == story.event_ids[0]
    )
    if isinstance(event, Transaction) and event.event_id in story.payment_event_ids:
        said.append(f"{at}    {story.account_id} is made to pay {event.currency} {event.amount:,}: is it held?")
    return said

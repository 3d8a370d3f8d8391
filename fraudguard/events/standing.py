"""Where the workers' consumer group stands: how far behind on each partition, and which worker has which.

Knows Kafka's admin questions; consumes nothing and changes nothing. One reading is a handful of requests, whatever the
topics hold.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import kafka.errors
from kafka import KafkaAdminClient, TopicPartition
from kafka.admin import OffsetSpec

from fraudguard.config import Settings
from fraudguard.errors import BrokerUnavailable
from fraudguard.events.topics import INPUTS

ANSWER_MS: Final = 3_000
_NO_OFFSET: Final = -1


@dataclass(frozen=True, slots=True)
class Share:
    """One partition of an input topic. end: the next offset to be written. committed: None where nothing was yet.

    lag: records that are not decided yet, as far as was committed. worker: its place in Standing.workers.
    """

    topic: str
    partition: int
    end: int
    committed: int | None
    lag: int
    worker: int | None


@dataclass(frozen=True, slots=True)
class Worker:
    """A member of the group. host: as the broker sees it. partitions: how many, over the input topics."""

    member: str
    client: str
    host: str
    partitions: int


@dataclass(frozen=True, slots=True)
class Standing:
    """state: Kafka's word for the group, like Stable, PreparingRebalance, Empty."""

    state: str
    workers: tuple[Worker, ...]
    shares: tuple[Share, ...]

    @property
    def lag(self) -> int:
        """Over all partitions."""
        return sum(share.lag for share in self.shares)


def read_standing(settings: Settings) -> Standing:
    """Ask Kafka, which blocks for some seconds at most. Raises BrokerUnavailable."""
    group = settings.consumer_group
    try:
        with KafkaAdminClient(
            bootstrap_servers=settings.kafka_bootstrap, request_timeout_ms=ANSWER_MS, bootstrap_timeout_ms=ANSWER_MS
        ) as admin:
            topics = admin.describe_topics(list(INPUTS))
            places = [TopicPartition(t["name"], p["partition_index"]) for t in topics for p in t["partitions"]]
            if not places:
                raise BrokerUnavailable("Kafka has none of the input topics: run `fraudguard topics`")
            first = admin.list_partition_offsets(dict.fromkeys(places, OffsetSpec.EARLIEST), timeout_ms=ANSWER_MS)
            ends = admin.list_partition_offsets(dict.fromkeys(places, OffsetSpec.LATEST), timeout_ms=ANSWER_MS)
            committed = admin.list_group_offsets({group: places})[group]
            described = admin.describe_groups([group])[group]
    except kafka.errors.KafkaError as error:
        raise BrokerUnavailable(f"Kafka does not say where the workers stand: {error}") from error
    members = sorted(described["members"], key=lambda member: (member["client_host"], member["member_id"]))
    held = [_held(member) for member in members]
    owners = {place: number for number, places_of in enumerate(held) for place in places_of}
    workers = tuple(
        Worker(m["member_id"], m["client_id"], m["client_host"].lstrip("/"), len(of))
        for m, of in zip(members, held, strict=True)
    )
    shares = tuple(_share(place, first, ends, committed, owners.get(place)) for place in sorted(places))
    return Standing(described["group_state"], workers, shares)


def _share(
    place: TopicPartition,
    first: Mapping[TopicPartition, Any],
    ends: Mapping[TopicPartition, Any],
    committed: Mapping[TopicPartition, Any],
    worker: int | None,
) -> Share:
    end, done = ends[place].offset, committed[place].offset if place in committed else _NO_OFFSET
    known = None if done == _NO_OFFSET else done
    # What retention has taken away is nobody's to decide any more.
    start = max(first[place].offset, done)
    return Share(place.topic, place.partition, end, known, max(0, end - start), worker)


def _held(member: Mapping[str, Any]) -> Sequence[TopicPartition]:
    """The input partitions that were given to a member; none while the group finds itself anew."""
    assignment = member["member_assignment"]
    given = assignment.get("assigned_partitions", ()) if isinstance(assignment, Mapping) else ()
    return [TopicPartition(one["topic"], p) for one in given for p in one["partitions"] if one["topic"] in INPUTS]

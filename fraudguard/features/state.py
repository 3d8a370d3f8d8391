"""Everything one account's features are made of, and the one way an event enters it.

Knows windows, profile and timeline together, and the lateness bound; knows no store: `dump` gives the bytes that
decisions/ keeps in the account's row, `restore` takes them back. The same events in the same order give the same
bytes, wherever the state was dumped and restored in between.

Size: with the default lateness a state has at most 288 buckets, 2 x 256 known counterparties, 32 devices, 32
countries and tokens_max tokens of lines, whatever the account does: under 128 KiB, a few KiB for ordinary accounts.
"""

from typing import Final

import orjson

from fraudguard.domain import Line, Message, Scalar, Screenable, Snapshot
from fraudguard.errors import BadSettings
from fraudguard.features.facts import Facts, facts_of
from fraudguard.features.feedback import FeedbackView
from fraudguard.features.money import Rates
from fraudguard.features.profile import Profile
from fraudguard.features.timeline import Tail, TokenCounter
from fraudguard.features.velocity import Velocity

STATE_VERSION: Final = 1
_SECOND_US: Final = 1_000_000


class AccountState:
    """The state of one account.

    tokens_max: of the timeline. lateness_s: an event further behind the account's latest one is late.
    """

    __slots__ = ("_lateness_us", "_profile", "_rates", "_sequence", "_tail", "_velocity", "account_id")

    def __init__(
        self, account_id: str, counter: TokenCounter, *, rates: Rates, tokens_max: int, lateness_s: int
    ) -> None:
        self.account_id = account_id
        self._rates, self._lateness_us = rates, lateness_s * _SECOND_US
        self._sequence = 0
        self._velocity, self._profile, self._tail = Velocity(), Profile(), Tail(counter, tokens_max)

    def take(self, event: Screenable, feedback: FeedbackView) -> Snapshot:
        """Enter an event of this account, never seen before, and say its features at this moment.

        Within the lateness bound the windows are those of the event's own time over what was taken so far, itself
        included. A late event changes no window and no profile and sees them as of the account's latest time; it gets
        a sequence number and a line like any other. If this raises, the state is as it was.
        """
        facts = facts_of(event, self._rates)
        latest = facts.us if self._profile.latest_us is None else self._profile.latest_us
        late = facts.us < latest - self._lateness_us
        profile = self._profile.features(facts)
        text, tokens = self._tail.fit(event, profile)
        line = Line(event.type, event.event_time, text)
        features = _event_features(event, facts, late) | profile | feedback.shares(event)
        # From here on nothing raises.
        if late:
            features |= self._velocity.read(latest)
        else:
            self._velocity.add(facts, max(latest, facts.us) - self._lateness_us)
            features |= self._velocity.read(facts.us)
            self._profile.update(facts)
        self._tail.append(line, tokens)
        self._sequence += 1
        return Snapshot(self._sequence, late, self._tail.timeline(self.account_id), features)

    def dump(self) -> bytes:
        """The state as compact JSON."""
        return orjson.dumps(
            {
                "v": STATE_VERSION,
                "base": self._rates.base,
                "sequence": self._sequence,
                "velocity": self._velocity.dump(),
                "profile": self._profile.dump(),
                "tail": self._tail.dump(),
            }
        )

    def restore(self, body: bytes) -> None:
        """Become what `dump` gave. Lines counted by another token counter are counted again.

        Raises BadSettings for a state of another version or base currency, and then is unchanged.
        """
        stored = orjson.loads(body)
        if stored["v"] != STATE_VERSION:
            raise BadSettings(
                f"the state of account {self.account_id} has version {stored['v']}, this build reads {STATE_VERSION}",
                hint="run the build that wrote it, or a newer one",
            )
        if stored["base"] != self._rates.base:
            raise BadSettings(
                f"the sums of account {self.account_id} are in {stored['base']}, not {self._rates.base}",
                path="base_currency",
                hint=f"set it back to {stored['base']}",
            )
        self._tail.restore(stored["tail"])
        self._sequence = stored["sequence"]
        self._velocity, self._profile = Velocity.load(stored["velocity"]), Profile.load(stored["profile"])


def _event_features(event: Screenable, facts: Facts, late: bool) -> dict[str, Scalar]:
    """The event group of the registry and the event's attributes."""
    features: dict[str, Scalar] = {
        "event_type": event.type,
        "channel": event.channel,
        "hour": event.event_time.hour,
        "late": late,
    }
    if isinstance(event, Message):
        features |= _NO_TRANSACTION
        features |= {"sender": event.sender, "language": event.language, "text": event.text}
    else:
        features |= _NO_MESSAGE
        features |= {
            "direction": event.direction,
            "kind": event.kind,
            "amount": float(event.amount),
            "currency": event.currency,
            "amount_base": None if facts.cents is None else facts.cents / 100,
            "counterparty_id": event.counterparty_id,
            "merchant_id": event.merchant_id,
            "device_id": event.device_id,
            "ip": event.ip,
            "country": event.country,
            "memo": event.memo,
        }
    features |= {f"attributes.{name}": value for name, value in event.attributes.items()}
    return features


_NO_MESSAGE: Final[dict[str, Scalar]] = dict.fromkeys(("sender", "language", "text"))
_NO_TRANSACTION: Final[dict[str, Scalar]] = dict.fromkeys(
    (
        "direction", "kind", "amount", "currency", "amount_base", "counterparty_id", "merchant_id", "device_id", "ip",
        "country", "memo",
    )
)  # fmt: skip

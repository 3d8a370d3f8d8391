"""Everything one account's features are made of, and the one way an event enters it.

Knows windows, profile, trend and timeline together, and the lateness bound; knows no store: `dump` gives the bytes that
decisions/ keeps in the account's row, `restore` takes them back. The same events in the same order give the same
bytes, wherever the state was dumped and restored in between.

Size: with the default lateness a state has at most 288 buckets, 2 x 256 known counterparties, 32 devices, 32
countries and tokens_max tokens of lines, whatever the account does: under 128 KiB, a few KiB for ordinary accounts.
Declared windows come on top; what one takes at most is in declared.py.
"""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Final
from zoneinfo import ZoneInfo

import orjson

from fraudguard.domain import Line, Scalar, Screenable, Snapshot, Window
from fraudguard.errors import BadSettings
from fraudguard.features.declared import AccountWindows
from fraudguard.features.event import event_features
from fraudguard.features.facts import facts_of, time_of
from fraudguard.features.feedback import FeedbackView
from fraudguard.features.money import Rates
from fraudguard.features.profile import Profile
from fraudguard.features.shared import SharedWindows
from fraudguard.features.timeline import Tail, TokenCounter
from fraudguard.features.trend import Trend
from fraudguard.features.velocity import Velocity

STATE_VERSION: Final = 1
_SECOND_US: Final = 1_000_000


class AccountState:
    """The state of one account.

    tokens_max: of the timeline. lateness_s: an event further behind the account's latest one is late. zone: of the
    calendar features. windows: all declared ones; those of other entities are `shared`'s in take.
    """

    __slots__ = (
        "_declared", "_lateness_us", "_profile", "_rates", "_sequence", "_tail", "_trend", "_velocity", "_zone",
        "account_id",
    )  # fmt: skip

    def __init__(
        self,
        account_id: str,
        counter: TokenCounter,
        *,
        rates: Rates,
        tokens_max: int,
        lateness_s: int,
        zone: ZoneInfo,
        windows: Sequence[Window],
    ) -> None:
        self.account_id = account_id
        self._rates, self._lateness_us, self._zone = rates, lateness_s * _SECOND_US, zone
        self._sequence = 0
        self._velocity, self._profile, self._tail = Velocity(), Profile(), Tail(counter, tokens_max)
        self._trend, self._declared = Trend(), AccountWindows(windows)

    def take(self, event: Screenable, feedback: FeedbackView, shared: SharedWindows) -> Snapshot:
        """Enter an event of this account, never seen before, and say its features at this moment.

        Within the lateness bound the windows are those of the event's own time over what was taken so far, itself
        included. A late event changes no window and no profile and sees them as of the account's latest time; it gets
        a sequence number and a line like any other. The event enters `shared` too. If this raises, the state and
        `shared` are as they were.
        """
        facts = facts_of(event, self._rates)
        latest = facts.us if self._profile.latest_us is None else self._profile.latest_us
        late = facts.us < latest - self._lateness_us
        profile = self._profile.features(facts)
        text, tokens = self._tail.fit(event, profile)
        line = Line(event.type, event.event_time, text)
        said = event_features(event, facts, self._zone, late=late)
        entries = [] if late else self._declared.entries(said)
        features = said | profile | feedback.shares(event)
        features |= shared.take(event, said, late=late)
        # From here on nothing raises.
        if late:
            features |= self._velocity.read(latest) | self._declared.read(latest)
        else:
            earliest = max(latest, facts.us) - self._lateness_us
            self._velocity.add(facts, earliest)
            self._declared.add(entries, facts.us, earliest)
            features |= self._velocity.read(facts.us) | self._declared.read(facts.us)
            self._profile.update(facts)
        self._tail.append(line, tokens)
        self._sequence += 1
        return Snapshot(self._sequence, late, self._tail.timeline(self.account_id), features)

    def trend(self) -> dict[str, Scalar]:
        """The features of how risk and typology moved, over the scores entered until now."""
        return self._trend.features()

    def scored(self, risk: float, typology: str) -> None:
        """Enter the score of the event taken last whose score was not entered yet; none for one without a score."""
        self._trend.enter(risk, typology)

    @property
    def unfilled(self) -> tuple[Window, ...]:
        """Account windows that the restored state never counted: they read as missing and count nothing until filled.

        Empty for a new account.
        """
        return self._declared.unfilled

    @property
    def history_from(self) -> datetime:
        """Events before this time change none of the unfilled windows."""
        longest_us = max((window.seconds for window in self._declared.unfilled), default=0) * _SECOND_US
        return time_of((self._profile.latest_us or 0) - self._lateness_us - longest_us)

    def fill(self, keys: Collection[str], history: Iterable[tuple[Screenable, bool]]) -> None:
        """Count the account's history into the unfilled windows among keys, as if they had always been declared.

        history: this account's taken events in sequence order, each with whether it was late; all that lie at most
        lateness_s and the longest of these windows before the latest, older ones change nothing. If this raises, the
        state is as it was.
        """
        filled = AccountWindows([window for window in self._declared.unfilled if window.key in keys])
        latest = self._profile.latest_us
        for event, late in history:
            if not late and latest is not None:
                facts = facts_of(event, self._rates)
                entries = filled.entries(event_features(event, facts, self._zone, late=False))
                filled.add(entries, facts.us, latest - self._lateness_us)
        self._declared.adopt(filled)

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
                "trend": self._trend.dump(),
                "declared": self._declared.dump(),
            }
        )

    def restore(self, body: bytes) -> None:
        """Become what `dump` gave. Lines counted by another token counter are counted again.

        A state written before there were trends and declared windows has no scores, and all its windows are unfilled.

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
        self._trend.restore(stored.get("trend", ([], [])))
        self._declared.restore(stored.get("declared", {}))
        self._velocity, self._profile = Velocity.load(stored["velocity"]), Profile.load(stored["profile"])

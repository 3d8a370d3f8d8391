"""A cast of accounts living through some days: ordinary life, frauds, and harmless stories that look like frauds.

Knows dates, ids and which account plays what; the same seed always gives the same cast.
Does not know how a story goes (teller.py), what an ordinary day holds (life.py) or any phrase (bank/).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from random import Random

from fraudguard.domain import Message, Screenable, Transaction, Typology
from fraudguard.errors import BadSettings
from fraudguard.stories import life
from fraudguard.stories.bank import Bank, Plot, Split, load
from fraudguard.stories.people import Person, make_person
from fraudguard.stories.teller import Draft, Teller

HARMLESS_PER_FRAUD = 1.5
# How often each typology is played, out of their sum.
_DECK = (
    ((Typology.SCAM,) * 7)
    + ((Typology.ACCOUNT_TAKEOVER,) * 2)
    + ((Typology.MULE,) * 2)
    + ((Typology.CASH_OUT,) * 2)
    + ((Typology.MONEY_LAUNDERING,) * 2)
    + (Typology.OTHER,)
)


@dataclass(frozen=True, slots=True)
class StoryEvent:
    """fraud: the event belongs to a fraud story and a verdict of fraud at this line is right.

    Openings that cannot yet be told from harmless talk are False. story_id: None for ordinary life.
    """

    event: Screenable
    fraud: bool
    story_id: str | None


@dataclass(frozen=True, slots=True)
class Story:
    """One told plot. typology: None for a hard harmless story. payment_event_ids: the fraud payments."""

    story_id: str
    account_id: str
    typology: Typology | None
    title: str
    event_ids: tuple[str, ...]
    first_fraud_event_id: str | None
    payment_event_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Cast:
    """events: over all accounts, in event-time order. stories: fraud and hard harmless, in no order.

    idle: who lived ordinary days alone.
    """

    events: tuple[StoryEvent, ...]
    stories: tuple[Story, ...]
    idle: tuple[Person, ...]


def generate(seed: int, accounts: int, start: datetime, days: int, frauds: int, split: Split) -> Cast:
    """`accounts` lives over `days` days from `start`, with `frauds` fraud stories and 1.5 times as many
    hard harmless ones, no two on one account.

    Texts of the two splits share no phrase and no named value. Raises BadSettings when the accounts do not suffice.
    """
    harmless = round(frauds * HARMLESS_PER_FRAUD)
    if frauds + harmless > accounts:
        raise BadSettings(f"{frauds} fraud and {harmless} harmless stories need as many accounts, got {accounts}")
    if days < 1 or start.tzinfo is None:
        raise BadSettings("a cast needs one day or more and a start with a zone")
    bank = load(split)
    prefix = f"{seed}{split[0]}"
    rng = Random(f"cast {prefix}")
    people = [make_person(Random(f"person {prefix} {n}"), bank, prefix, n) for n in range(accounts)]
    # Few receiving accounts serve many frauds, as mule accounts do.
    ring = [f"c-{prefix}-ring-{n}" for n in range(max(2, frauds // 6))]
    plots = _casting(rng, bank, people, frauds, harmless)
    events: list[StoryEvent] = []
    stories: list[Story] = []
    for person in people:
        days_of = Days(Random(f"days {prefix} {person.number}"), bank, person, prefix, start, days, ring)
        if person.number in plots:
            stories.append(days_of.play(plots[person.number], f"{prefix}-{len(stories)}"))
        days_of.live()
        events.extend(days_of.events)
    events.sort(key=lambda e: (e.event.event_time, e.event.event_id))
    idle = tuple(person for person in people if person.number not in plots)
    return Cast(tuple(events), tuple(stories), idle)


def _casting(rng: Random, bank: Bank, people: Sequence[Person], frauds: int, harmless: int) -> dict[int, Plot]:
    """Which account plays which plot: every typology in turn, in the account's language."""
    deck = list(_DECK)
    rng.shuffle(deck)
    kinds = [deck[i % len(deck)].value for i in range(frauds)] + ["harmless"] * harmless
    chosen = rng.sample(range(len(people)), frauds + harmless)
    hands: dict[tuple[str, str], list[Plot]] = {}
    playing = {}
    for number, kind in zip(chosen, kinds, strict=True):
        key = kind, people[number].language
        if not hands.get(key):  # every plot of a kind is played before one is played again
            hands[key] = rng.sample(bank.plots[key], len(bank.plots[key]))
        playing[number] = hands[key].pop()
    return playing


@dataclass(slots=True)
class Days:
    """One account's days being written down. prefix: makes the ids of its events its own."""

    rng: Random
    bank: Bank
    person: Person
    prefix: str
    start: datetime
    days: int
    ring: Sequence[str]
    events: list[StoryEvent] = field(default_factory=list)
    _moved: tuple[datetime, str, str] | None = None
    _conversations: int = 0

    @property
    def _end(self) -> datetime:
        return self.start + timedelta(days=self.days)

    def play(self, plot: Plot, story_id: str) -> Story:
        """Tell the plot somewhere in the days and write it down."""
        old = self.person.device, self.person.ip
        drafts = self._fitted(Teller(self.rng, self.bank, self.person, plot, story_id, self.ring).tell())
        begin = self._begin(sum(draft.after for draft in drafts))
        if (self.person.device, self.person.ip) != old:
            self._moved = begin, self.person.device, self.person.ip
            self.person.device, self.person.ip = old
        told = list(self._write(drafts, begin, story_id))
        fraudulent = [e for e in told if e.fraud]
        return Story(
            story_id=story_id,
            account_id=self.person.account_id,
            typology=plot.typology,
            title=plot.title,
            event_ids=tuple(e.event.event_id for e in told),
            first_fraud_event_id=fraudulent[0].event.event_id if fraudulent else None,
            payment_event_ids=tuple(e.event.event_id for e in fraudulent if isinstance(e.event, Transaction)),
        )

    def _fitted(self, drafts: list[Draft]) -> list[Draft]:
        """The drafts with their long pauses shortened until the story fits into the days."""
        room = self.days * 86400 * 0.9
        long = sum(d.after for d in drafts if d.after > 1800)
        short = sum(d.after for d in drafts) - long
        if long + short <= room:
            return drafts
        factor = max(room - short, 0.0) / long
        return [replace(d, after=d.after * factor) if d.after > 1800 else d for d in drafts]

    def _begin(self, length: float) -> datetime:
        """A time from which `length` seconds fit, in the owner's waking hours if one is found."""
        begin = self.start
        for _ in range(20):
            begin = self.start + timedelta(seconds=self.rng.uniform(0, self.days * 86400 - length))
            if 8 <= (begin.hour + self.person.utc_offset) % 24 < 21:
                break
        return begin

    def live(self) -> None:
        """Write down the ordinary events of every day."""
        midnight = self.start - timedelta(hours=(self.start.hour + self.person.utc_offset) % 24)
        for day in range(-1, self.days + 1):
            dawn = midnight + timedelta(days=day)
            for habit in life.payments(self.rng, self.bank, self.person, dawn.date()):
                when = dawn + timedelta(seconds=habit.second)
                if self.start <= when < self._end:
                    self._keep(self.habit(habit, when), False, None)
            for second, plot in life.chats(self.rng, self.bank, self.person):
                when = dawn + timedelta(seconds=second)
                drafts = Teller(self.rng, self.bank, self.person, plot, f"{self.person.account_id}-life", ()).tell()
                if self.start <= when and when + timedelta(seconds=sum(d.after for d in drafts)) < self._end:
                    list(self._write(drafts, when, None))

    def _write(self, drafts: Sequence[Draft], begin: datetime, story_id: str | None) -> Iterator[StoryEvent]:
        self._conversations += 1
        conversation = f"k-{self.prefix}-{self.person.number}-{self._conversations}"
        when = begin
        for draft in drafts:
            when += timedelta(milliseconds=max(int(draft.after * 1000), 1))
            yield self._keep(self._drafted(draft, when, conversation), draft.fraud, story_id)

    def _keep(self, event: Screenable, fraud: bool, story_id: str | None) -> StoryEvent:
        kept = StoryEvent(event, fraud, story_id)
        self.events.append(kept)
        return kept

    def _id(self, kind: str) -> str:
        return f"{kind}-{self.prefix}-{self.person.number}-{len(self.events)}"

    def _place(self, when: datetime) -> tuple[str, str]:
        if self._moved and when >= self._moved[0]:
            return self._moved[1], self._moved[2]
        return self.person.device, self.person.ip

    def _drafted(self, draft: Draft, when: datetime, conversation: str) -> Screenable:
        if draft.pay is None:
            return Message(
                type="message",
                version=1,
                event_id=self._id("m"),
                account_id=self.person.account_id,
                event_time=when,
                conversation_id=f"{conversation}-{draft.channel}",
                channel=draft.channel,  # type: ignore[arg-type]  # checked by the model itself
                sender=draft.sender,  # type: ignore[arg-type]  # checked by the model itself
                language=self.person.language,
                text=draft.text,
            )
        assert draft.amount is not None  # noqa: S101 - a payment has an amount by construction
        device, ip = self._place(when)
        shop = draft.pay.kind in ("card", "refund")
        remote = draft.pay.way == "out" and draft.channel in ("app", "web", "card_not_present")
        return Transaction(
            type="transaction",
            version=1,
            event_id=self._id("t"),
            account_id=self.person.account_id,
            event_time=when,
            direction="debit" if draft.pay.way == "out" else "credit",
            kind=draft.pay.kind,  # type: ignore[arg-type]  # checked by the model itself
            channel=draft.channel,  # type: ignore[arg-type]  # checked by the model itself
            amount=draft.amount,
            currency=self.person.currency,
            counterparty_id=None if shop else draft.counterparty,
            merchant_id=draft.counterparty if shop else None,
            device_id=draft.device or (device if remote else None),
            ip=draft.ip or (ip if remote else None),
            country=self._country(draft.pay.abroad),
            memo=draft.memo,
        )

    def _country(self, abroad: bool) -> str:
        """Home, or the one country this account's owner (or thief) is in."""
        if not abroad:
            return self.person.country
        places = [c for c in ("TH", "MY", "PH", "KH", "JP", "GB", "US") if c != self.person.country]
        return places[self.person.number % len(places)]

    def habit(self, habit: life.Habit, when: datetime) -> Transaction:
        """An everyday payment as an event."""
        device, ip = self._place(when)
        remote = habit.channel in ("app", "web", "card_not_present") and habit.way == "debit"
        return Transaction(
            type="transaction",
            version=1,
            event_id=self._id("t"),
            account_id=self.person.account_id,
            event_time=when,
            direction=habit.way,  # type: ignore[arg-type]  # checked by the model itself
            kind=habit.kind,  # type: ignore[arg-type]  # checked by the model itself
            channel=habit.channel,  # type: ignore[arg-type]  # checked by the model itself
            amount=habit.amount,
            currency=self.person.currency,
            counterparty_id=None if habit.shop else habit.counterparty,
            merchant_id=habit.counterparty if habit.shop else None,
            device_id=device if remote else None,
            ip=ip if remote else None,
            country=self.person.country,
            memo=habit.memo,
        )

"""Stories that go on while somebody watches: every few seconds a line or a payment, and now and then a scam.

Knows pace and turns; the same seed, people and run always unfold the same way, without end. Knows no clock and sends
nothing: each event says at which second it is due, and whoever sends it gives it its time.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from heapq import merge
from itertools import count
from random import Random
from typing import Final

from fraudguard.domain import Screenable, Typology
from fraudguard.stories import life
from fraudguard.stories.bank import Bank, Plot, Split, load
from fraudguard.stories.cast import Days, Story
from fraudguard.stories.people import Person

FIRST_SCAM_S: Final = 20.0
SCAM_EVERY_S: Final = 180.0  # from one's first line to the next one's
PACE_S: Final = (2.5, 6.0)  # between two lines of a conversation, whatever it took in the story
PAYMENT_EVERY_S: Final = (4.0, 9.0)  # ordinary ones, over all accounts
CHATS: Final = 2  # harmless conversations at once
CHAT_PAUSE_S: Final = (5.0, 20.0)
HARD: Final = 0.25  # of harmless conversations, how many look like a fraud
LINES: Final = (12, 26)  # of a scam: time to be seen, and no longer
_TRIES: Final = 200
_ANY_DAY: Final = datetime(2026, 1, 5, tzinfo=UTC)  # whoever sends the events dates them


@dataclass(frozen=True, slots=True)
class Moment:
    """second: when it is due, counted from the beginning. story: the scam or harmless plot that it belongs to."""

    second: float
    event: Screenable
    story: Story | None


def unfold(people: Sequence[Person], seed: int, run: str, split: Split) -> Iterator[Moment]:
    """Events of these people, two or more, without end, by their second. run: makes the ids those of this run alone.

    Every second one of them is there for scams alone: harmless talk in the middle of one would be another story.
    """
    bank = load(split)

    def lane(name: str, of: Sequence[Person]) -> _Lane:
        return _Lane(Random(f"unfold {seed} {name}"), bank, of, f"{run}{name}")

    victims, others = people[::2], people[1::2]
    scams, payments, chats = lane("s", victims), lane("p", others), [lane(f"c{n}", others) for n in range(CHATS)]
    return merge(scams.scams(), payments.payments(), *(chat.chats() for chat in chats), key=lambda m: m.second)


@dataclass(slots=True)
class _Lane:
    """One thing after the other, in order of its seconds."""

    rng: Random
    bank: Bank
    people: Sequence[Person]
    prefix: str

    def scams(self) -> Iterator[Moment]:
        """One every SCAM_EVERY_S, in both languages by turns, each to its payment."""
        second = FIRST_SCAM_S
        waiting: list[Person] = []
        for number in count():
            waiting = waiting or self.rng.sample(self.people, len(self.people))  # nobody twice before everybody once
            person = next((p for p in waiting if p.language == ("zh", "en")[number % 2]), waiting[0])
            waiting.remove(person)
            story, events = self._scam(person, number)
            last = second
            for last, event in self._paced(second, events):
                yield Moment(last, event, story)
            second = max(second + SCAM_EVERY_S, last + CHAT_PAUSE_S[0])

    def _scam(self, person: Person, number: int) -> tuple[Story, list[Screenable]]:
        """A scam of LINES lines with a payment; after _TRIES whatever came."""
        for _ in range(_TRIES):
            told = self._told(person, self.rng.choice(self.bank.plots[Typology.SCAM, person.language]), str(number))
            if told[0].payment_event_ids and LINES[0] <= len(told[1]) <= LINES[1]:
                break
        return told

    def chats(self) -> Iterator[Moment]:
        """Harmless talk, a quarter of it on subjects that frauds have too."""
        second = self.rng.uniform(*CHAT_PAUSE_S)
        for number in count():
            person = self.rng.choice(self.people)
            kind = "harmless" if self.rng.random() < HARD else "everyday"
            plot = self.rng.choice(self.bank.plots[kind, person.language])
            story, events = self._told(person, plot, str(number))
            for second, event in self._paced(second, events):  # noqa: B020  the next one begins where this one ended
                yield Moment(second, event, story)
            second += self.rng.uniform(*CHAT_PAUSE_S)

    def payments(self) -> Iterator[Moment]:
        """What people pay and earn on any day, one payment at a time."""
        second = 0.0
        for number in count():
            person = self.rng.choice(self.people)
            days = self._days(person, f"{self.prefix}{number}")
            for habit in life.payments(self.rng, self.bank, person, _ANY_DAY.date() + timedelta(days=number % 365)):
                second += self.rng.uniform(*PAYMENT_EVERY_S)
                yield Moment(second, days.habit(habit, _ANY_DAY), None)
                break

    def _paced(self, second: float, events: Sequence[Screenable]) -> Iterator[tuple[float, Screenable]]:
        for event in events:
            second += self.rng.uniform(*PACE_S)
            yield second, event

    def _told(self, person: Person, plot: Plot, number: str) -> tuple[Story, list[Screenable]]:
        days = self._days(person, f"{self.prefix}{number}")
        story = days.play(plot, f"{self.prefix}{number}")
        return story, [told.event for told in days.events]

    def _days(self, person: Person, prefix: str) -> Days:
        return Days(self.rng, self.bank, person, prefix, _ANY_DAY, 1, ())

"""Plays a plot for one person: the drafts of its messages and payments, each after a pause from the one before.

Knows pace, turn order, interruptions and the values of slots. Does not know dates: cast.py places the drafts.
"""

import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from random import Random

from fraudguard.stories import voice
from fraudguard.stories.bank import Bank, Beat, Either, Gap, Mark, NewPhone, Pay, Plot, Quit, Say, Some, Use
from fraudguard.stories.people import Person, address

# Median seconds before the next message of a channel.
_PACE = {"chat": 35.0, "call": 7.0, "sms": 60.0, "email": 900.0, "service": 25.0}
_DROPPED, _OPTIONAL, _ACK, _ASIDE, _CUT_SHORT, _IN_ONE_BREATH = 0.04, 0.65, 0.25, 0.05, 0.1, 0.4
_SEVERAL = (5, 3, 2)  # weights of one, two and three variants
_SUM = re.compile(r"(?:([a-z_]+)\*)?([\d.]+)-([\d.]+)( exact)?")


@dataclass(frozen=True, slots=True)
class Draft:
    """A message (text) or payment (pay and amount) that comes `after` seconds.

    device and ip: None for the owner's own.
    """

    after: float
    fraud: bool
    channel: str
    sender: str = ""
    text: str = ""
    pay: Pay | None = None
    amount: Decimal | None = None
    counterparty: str | None = None
    device: str | None = None
    ip: str | None = None
    memo: str | None = None


class _Ended(Exception):
    pass


class Teller:
    """One telling of one plot. `story` makes ids of new payees and devices; `ring` are payees shared by frauds."""

    def __init__(self, rng: Random, bank: Bank, person: Person, plot: Plot, story: str, ring: Sequence[str]) -> None:
        self._rng, self._bank, self._person, self._plot, self._story = rng, bank, person, plot, story
        self._ring = rng.choice(ring) if ring else f"c-{story}-x"
        self._values: dict[str, str] = {}
        self._sums: dict[str, float] = {}
        self._drafts: list[Draft] = []
        self._said: set[int] = set()
        self._pause = 0.0
        self._fraud = False
        self._fresh = 0
        self._their_sloppiness = rng.random() * (0.3 if plot.channel == "service" else 0.8)
        self._new_device, self._new_ip = f"d-{story}-n", address(rng, abroad=True)
        # Officials and business callers do not drift into small talk; in chats among people it happens.
        self._asides = plot.kind != "everyday" and plot.channel == "chat"

    def tell(self) -> list[Draft]:
        """The drafts in order; at least one."""
        with contextlib.suppress(_Ended):
            self._play(self._plot.beats)
        drafts = self._drafts
        if self._plot.typology and self._rng.random() < _CUT_SHORT:  # the victim hangs up, the gang gives up
            first = next((i for i, d in enumerate(drafts) if d.fraud), len(drafts))
            drafts = drafts[: self._rng.randint(min(first + 1, len(drafts)), len(drafts))]
        return drafts

    def _play(self, beats: Sequence[Beat]) -> None:
        for beat in beats:
            match beat:
                case Say():
                    self._say(beat)
                case Pay():
                    self._pay(beat)
                case Gap(low, high):
                    self._pause += self._rng.uniform(low, high)
                case Mark():
                    self._fraud = True
                case NewPhone():
                    self._person.device, self._person.ip = self._new_device, address(self._rng)
                case Quit(chance):
                    if self._rng.random() < chance:
                        raise _Ended
                case Use(fragment):
                    self._play(self._bank.fragments[self._plot.language, fragment])
                case Some(groups):
                    for group in self._rng.sample(groups, self._rng.randint((2 * len(groups) + 2) // 3, len(groups))):
                        self._play(group)
                case Either(groups):
                    self._play(self._rng.choice(groups))

    # ------------------------------------------------------------ talk

    def _say(self, beat: Say) -> None:
        rng = self._rng
        if self._drafts and rng.random() < (1 - _OPTIONAL if beat.optional else _DROPPED):
            return
        channel = beat.channel or self._plot.channel
        # Nobody says the same thing twice while there is another way to say it.
        fresh = [phrase for phrase in beat.phrases if id(phrase) not in self._said] or list(beat.phrases)
        count = rng.choices((1, 2, 3), _SEVERAL)[0] if beat.several else 1
        if beat.sender in ("customer", "counterparty"):
            sloppiness = self._person.sloppiness if beat.sender == "customer" else self._their_sloppiness
        else:
            sloppiness = None
        for phrase in rng.sample(fresh, min(count, len(fresh))):
            self._said.add(id(phrase))
            for part in phrase.say(rng, self.value).split(" // "):
                for piece in [part] if sloppiness is None else voice.clauses(rng, channel, part, sloppiness):
                    self._utter(channel, beat.sender, piece, sloppiness)
        if beat.sender != "customer" and channel != "email" and self._plot.kind != "everyday" and rng.random() < _ACK:
            self._play(self._bank.fragments[self._plot.language, "ack"])
        if self._asides and rng.random() < _ASIDE:
            self._asides = False  # once a story
            self._play(self._bank.fragments[self._plot.language, "aside"])

    def _utter(self, channel: str, sender: str, text: str, sloppiness: float | None) -> None:
        if sloppiness is not None:
            text = voice.roughen(self._rng, self._plot.language, channel, text, sloppiness)
        last = self._drafts[-1] if self._drafts else None
        goes_on = last and last.sender == sender and last.channel == channel == "call" and last.fraud == self._fraud
        if last and goes_on and not self._pause and self._rng.random() < _IN_ONE_BREATH:
            joint = " " if self._plot.language == "en" or last.text[-1] in "。？！" else "，"
            self._drafts[-1] = replace(last, text=last.text + joint + text)
        else:
            self._put(_PACE[channel], channel=channel, sender=sender, text=text)

    def value(self, name: str) -> str:
        """What a slot holds: the same for the whole story, but for amounts, which are worded anew."""
        if name in self._plot.sums:
            return voice.spoken(self._rng, self._plot.language, self._person.currency, self._sum(name))
        if name not in self._values:
            base = name.rstrip("0123456789")
            value = voice.identifier(self._rng, self._plot.language, base)
            if value is None:
                taken = {held for key, held in self._values.items() if key.rstrip("0123456789") == base}
                values = self._bank.slots[self._plot.language, base]
                value = self._rng.choice([v for v in values if v not in taken] or values)
            self._values[name] = value
        return self._values[name]

    def _sum(self, name: str) -> float:
        if name not in self._sums:
            self._sums[name] = self._draw(name)
        return self._sums[name]

    def _draw(self, name: str) -> float:
        found = _SUM.fullmatch(self._plot.sums[name])
        if found is None:
            raise ValueError(f"{self._plot.name}: sum {name} is not like 100-900, 5-9 exact or other*0.1-0.2")
        factor = self._sum(found[1]) if found[1] else 1 / voice.rate(self._plot.language, self._person.currency)
        return voice.draw(self._rng, float(found[2]) * factor, float(found[3]) * factor, found[4] is not None)

    # ------------------------------------------------------------ money

    def _pay(self, beat: Pay) -> None:
        rng, total = self._rng, self._sum(beat.sum)
        if beat.parts:
            weights = [rng.uniform(0.6, 1.4) for _ in range(rng.randint(*beat.parts))]
            amounts = [total * weight / sum(weights) for weight in weights]
            amounts = [max(round(amount), 1.0) if total % 1 == 0 else amount for amount in amounts]
        else:
            # The named amount is the first payment's; each repeat is drawn anew.
            amounts = [total, *(self._draw(beat.sum) for _ in range(rng.randint(*beat.times) - 1))]
        for turn, amount in enumerate(amounts):
            self._pause += rng.uniform(*beat.every) if turn else 0.0
            self._put(
                rng.uniform(20, 150) if turn == 0 else 1.0,
                channel=beat.channel,
                pay=beat,
                amount=self._person.amount(amount),
                counterparty=self._counterparty(beat.to),
                device=self._new_device if beat.new_device else None,
                ip=self._new_ip if beat.new_device or beat.abroad else None,
                memo=rng.choice(beat.memos).say(rng, self.value) if beat.memos else None,
            )

    def _counterparty(self, to: str) -> str | None:
        match to:
            case "none":
                return None
            case "ring":
                return self._ring
            case "known":
                return self._rng.choice(self._person.payees)
            case "self":
                return f"c-{self._person.account_id}-self"
            case "many":
                self._fresh += 1
                return f"c-{self._story}-{self._fresh}"
            case "shop":
                return self._rng.choice(self._person.shops)
        return f"c-{self._story}-{to}"

    def _put(self, pace: float, **fields: object) -> None:
        after = self._pause + pace * self._rng.lognormvariate(0, 0.6)
        self._pause = 0.0
        self._drafts.append(Draft(after=after, fraud=self._fraud, **fields))  # type: ignore[arg-type]  # Draft's own fields

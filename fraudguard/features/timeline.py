"""An account's events as the lines that the model reads: `customer: text`, `[pay out CNY 50,000 transfer new payee]`.

Knows how an event looks in words and how many lines fit; does not know the tokenizer (a `TokenCounter` is given),
velocity or risk. Brackets are ours alone: in what people wrote they become parentheses, line breaks become ` / `, and a
speaker's name loses its colon, so no message or memo can pass for a payment or for another speaker.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final, Literal, Protocol

from fraudguard.domain import Line, Scalar, Screenable, Timeline, Transaction
from fraudguard.features.facts import microseconds, time_of

TEXT_CHARS_MAX: Final = 400  # of a message in its line; the middle of a longer one is left out
MEMO_CHARS_MAX: Final = 80
CHAT_SPAN: Final = timedelta(days=1)

_BREAK: Final = re.compile(r"\s*[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]\s*")
_SPACES: Final = re.compile(r"\s+")
# Unicode's control and format characters (Cc, Cf) that are not white space: invisible, they hide or reorder words.
_INVISIBLE: Final = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b-\u200f\u202a-\u202e"
    "\u2060-\u2064\u2066-\u206f\ufeff\ufff9-\ufffb\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0001\U000e0020-\U000e007f]"
)
_BRACKETS: Final = str.maketrans("[]［］", "()()")
_SPEAKER: Final = re.compile(r"(customer|counterparty|agent|system)\s*[:：﹕∶꞉]", re.IGNORECASE)
_LEFT_OUT: Final = " … "
_CHARS_MIN: Final = 8  # of a text that is cut for its tokens

_KINDS: Final = {"top_up": "top up", "other": "payment"}
_PLACES: Final = {"app": "", "card_present": "in person", "card_not_present": "online"}


class TokenCounter(Protocol):
    """How many tokens the model makes of a line, its line end included. id changes whenever a count may."""

    @property
    def id(self) -> str: ...  # noqa: D102 - see the class

    def count(self, line: str) -> int: ...  # noqa: D102 - see the class


def clean(text: str, chars_max: int) -> str:
    """What a person wrote, on one line of at most chars_max characters, unable to look like a line of ours.

    Of a longer text the first and last part stay: what matters may stand at either end.
    """
    if not text.isprintable():
        text = _BREAK.sub(" / ", _INVISIBLE.sub("", text).strip())
    text = _SPACES.sub(" ", text.translate(_BRACKETS)).strip()
    if len(text) > chars_max:
        kept = max(chars_max - len(_LEFT_OUT), 2)
        text = text[: kept - kept // 2].rstrip() + _LEFT_OUT + text[len(text) - kept // 2 :].lstrip()
    return _SPEAKER.sub(r"\1-", text)  # never longer than before


def _money(amount: Decimal, currency: str) -> str:
    digits = -int(amount.normalize().as_tuple().exponent)
    return f"{currency} {amount:,.{max(digits, 2) if digits > 0 else 0}f}"


def _payment(event: Transaction, facts: Mapping[str, Scalar], memo: str) -> str:
    out = event.direction == "debit"
    words = ["pay out" if out else "received", _money(event.amount, event.currency), _KINDS.get(event.kind, event.kind)]
    words.append(_PLACES.get(event.channel, event.channel))
    new_counterparty = facts["is_new_counterparty"]
    if new_counterparty is not None:
        words.append(
            ("" if out else "from ") + ("new " if new_counterparty else "known ") + ("payee" if out else "payer")
        )
    if facts["is_new_device"]:
        words.append("new device")
    if facts["is_new_country"]:
        words.append(f"new country {event.country}")
    if memo:
        words.append(f"memo: {memo}")
    return f"[{' '.join(word for word in words if word)}]"


def render(event: Screenable, facts: Mapping[str, Scalar], chars_max: int) -> str:
    """The event's line. chars_max: of its text or memo.

    facts: its profile features, of which is_new_counterparty, is_new_device and is_new_country are said.
    """
    if isinstance(event, Transaction):
        return _payment(event, facts, clean(event.memo or "", chars_max))
    channel = "" if event.channel == "chat" else f"{event.channel} "
    return f"{channel}{event.sender}: {clean(event.text, chars_max)}"


def chat(timeline: Timeline) -> str | None:
    """The text of the timeline's messages in the day up to its last event, one a line; None where there is none."""
    messages = ((line.event_time, line.text) for line in timeline.lines if line.type == "message")
    return said(messages, timeline.lines[-1].event_time)


def said(messages: Iterable[tuple[datetime, str]], at: datetime) -> str | None:
    """`chat` of lines that are messages, each with its event time, at the time of the last event."""
    texts = [line.partition(": ")[2] for time, line in messages if at - CHAT_SPAN < time <= at]
    return "\n".join(texts) if texts else None


class Tail:
    """The newest lines of one account with their token counts, together at most tokens_max tokens.

    When an append exceeds tokens_max, the oldest lines go in one block, down to half of it, so that the prefix the
    engine has cached survives between cuts. A line takes at most half, unless our own words alone take more.
    """

    __slots__ = ("_counter", "_lines", "_start", "_times", "_tokens", "_tokens_max")

    def __init__(self, counter: TokenCounter, tokens_max: int) -> None:
        self._counter, self._tokens_max = counter, tokens_max
        self._start = 1
        self._lines: list[Line] = []
        self._times: list[int] = []
        self._tokens: list[int] = []

    def fit(self, event: Screenable, facts: Mapping[str, Scalar]) -> tuple[str, int]:
        """The event's line and its tokens, the middle of its text left out until it takes at most half."""
        half = self._tokens_max // 2
        chars = MEMO_CHARS_MAX if isinstance(event, Transaction) else TEXT_CHARS_MAX
        text = render(event, facts, chars)
        tokens = self._counter.count(text)
        while tokens > half and chars > _CHARS_MIN:
            chars = min(chars, len(text))
            chars = max(_CHARS_MIN, min(chars * 7 // 8, chars * half // tokens))
            text = render(event, facts, chars)
            tokens = self._counter.count(text)
        return text, tokens

    def append(self, line: Line, tokens: int) -> None:
        """Append a line that `fit` gave, then cut. Never raises."""
        self._lines.append(line)
        self._times.append(microseconds(line.event_time))
        self._tokens.append(tokens)
        total = sum(self._tokens)
        if total <= self._tokens_max:
            return
        gone = 0
        while total > self._tokens_max // 2 and gone < len(self._lines) - 1:
            total -= self._tokens[gone]
            gone += 1
        del self._lines[:gone], self._times[:gone], self._tokens[:gone]
        self._start += gone

    def timeline(self, account_id: str) -> Timeline:
        """The lines as they stand."""
        return Timeline(account_id, self._start, tuple(self._lines))

    def dump(self) -> list[Any]:
        """Everything as plain values, by column."""
        kinds = "".join(line.type[0] for line in self._lines)
        return [self._counter.id, self._start, kinds, self._times, self._tokens, [line.text for line in self._lines]]

    def restore(self, stored: list[Any]) -> None:
        """The inverse of `dump`; counts again if the stored counts are another counter's."""
        counter_id, self._start, kinds, self._times, tokens, texts = stored
        types: dict[str, Literal["transaction", "message"]] = {"t": "transaction", "m": "message"}
        self._lines = [
            Line(types[kind], time_of(us), text) for kind, us, text in zip(kinds, self._times, texts, strict=True)
        ]
        self._tokens = tokens if counter_id == self._counter.id else [self._counter.count(text) for text in texts]

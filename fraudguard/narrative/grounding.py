"""What may leave of a narrative's text: plain words and links to evidence that there is.

Text comes in pieces cut anywhere, from a language model or a template; what goes out is text in which nothing can be
markup, and links by number. `[3]` becomes a link where there is an item 3, and nothing otherwise; other brackets become
parentheses, so no Markdown link or image remains. `<`, `>`, `&` and quotes are escaped for HTML; invisible characters
go. What a reasoning model thinks before it speaks (<think> to </think>) is left out.
"""

import html
import re
import unicodedata
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final

CHARS_MAX: Final = 4_000  # of a narrative
LINK_CHARS_MAX: Final = 32  # of [1, 2, 3]
THINK, THOUGHT = "<think>", "</think>"

_BRACKETS: Final = str.maketrans("【】［］", "[][]")  # as Chinese writers set them
_LINK: Final = re.compile(r"\[\s*(\d{1,3}(?:\s*[,，、;；]\s*\d{1,3})*)\s*\]")
_LINK_BEGUN: Final = re.compile(r"\[[\s\d,，、;；]*")
_SPECIAL: Final = re.compile(r"[<\[\]]")


@dataclass(frozen=True, slots=True)
class Text:
    """Escaped text."""

    text: str


@dataclass(frozen=True, slots=True)
class Link:
    """A link to an item of this number."""

    number: int


@dataclass(frozen=True, slots=True)
class Discard:
    """All before it was thought, not said: a model whose thinking began in its template says only where it ended."""


Piece = Text | Link | Discard


class Grounding:
    """One text; `feed` it in order, then `end` it. full: CHARS_MAX characters went out, and nothing more will."""

    def __init__(self, numbers: Collection[int]) -> None:
        """numbers: of the items there are."""
        self._numbers = frozenset(numbers)
        self._held = ""
        self._thinking = False
        self._left = CHARS_MAX

    @property
    def full(self) -> bool:
        """Whether nothing more goes out."""
        return self._left <= 0

    def feed(self, text: str) -> list[Piece]:
        """What goes out after this much more."""
        self._held += text.translate(_BRACKETS)
        return list(self._pieces(ended=False))

    def end(self) -> list[Piece]:
        """What was held back, now that nothing follows it."""
        return list(self._pieces(ended=True))

    def _pieces(self, *, ended: bool) -> Iterator[Piece]:
        while self._held and not self.full:
            if self._thinking:
                before, found, after = self._held.partition(THOUGHT)
                self._held = after if found else before[-len(THOUGHT) :]
                if not found:
                    return
                self._thinking = False
                continue
            special = _SPECIAL.search(self._held)
            plain = special.start() if special else len(self._held)
            if plain:
                yield from self._say(self._take(plain))
            elif self._may_become_more() and not ended:
                return
            else:
                yield from self._mark()

    def _may_become_more(self) -> bool:
        """Whether what is held may be the beginning of a link or of a tag."""
        if self._held[0] == "[":
            return len(self._held) < LINK_CHARS_MAX and bool(_LINK_BEGUN.fullmatch(self._held))
        return self._held[0] == "<" and (THINK.startswith(self._held) or THOUGHT.startswith(self._held))

    def _mark(self) -> Iterator[Piece]:
        """Whatever begins with a special character."""
        if self._held.startswith(THINK):
            self._take(len(THINK))
            self._thinking = True
        elif self._held.startswith(THOUGHT):
            self._take(len(THOUGHT))
            self._left = CHARS_MAX
            yield Discard()
        elif link := _LINK.match(self._held):
            self._take(link.end())
            for number in re.findall(r"\d+", link[1]):
                if int(number) in self._numbers:
                    self._left -= 1  # a text of links alone must end too
                    yield Link(int(number))
        else:
            yield from self._say({"[": "(", "]": ")"}.get(self._held[0], self._held[0]), taken=1)

    def _say(self, text: str, taken: int = 0) -> Iterator[Piece]:
        self._take(taken)
        seen = "".join(c for c in text if c == "\n" or unicodedata.category(c) not in ("Cc", "Cf", "Cs"))[: self._left]
        if seen:
            self._left -= len(seen)
            yield Text(html.escape(seen))

    def _take(self, chars: int) -> str:
        taken, self._held = self._held[:chars], self._held[chars:]
        return taken

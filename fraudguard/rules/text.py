"""What the text tests of a rule see: text folded so that spelling tricks do not hide a phrase.

Knows characters, not rules. Every text test of the language (`mentions`, `contains`, `starts with`, `ends with`,
`matches`) reads folded text; `==` and `in` read the text as it is.
"""

import re
import unicodedata
from functools import lru_cache

# Han, kana and the marks written among them. Hangul is left out: Korean puts meaning into its spaces.
_CJK = "\u3005-\u3007\u3040-\u3098\u309b-\u30ff\u3400-\u9fff\U00020000-\U0003ffff"
_BETWEEN_CJK = re.compile(rf"(?<=[{_CJK}])(?:[^\w\n]|_)+(?=[{_CJK}])")
# Zero-width and direction marks, soft hyphen, variation selectors, unpaired surrogates: they show nothing.
_INVISIBLE = re.compile("[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
                        "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb"
                        "\ud800-\udfff\U000e0000-\U000e0fff]")  # fmt: skip


@lru_cache(maxsize=8192)  # the lines of a conversation come again with each of its events
def _fold_line(line: str) -> str:
    if not line.isascii():
        line = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", _INVISIBLE.sub("", line)).casefold())
        line = _BETWEEN_CJK.sub("", line)
    return " ".join(line.casefold().split())


def fold(text: str) -> str:
    """The text with look and spelling evened out, line by line; lines that show nothing are dropped.

    NFKC (full-width to half-width), case folded, invisible characters dropped, everything but letters, digits and
    line breaks dropped between two Chinese or Japanese characters (急-用-钱 reads 急用钱), blanks run together.
    A line break stays a boundary, because the lines of a conversation are different people.
    """
    return "\n".join(filter(None, map(_fold_line, text.splitlines())))


def mentions(folded: str, term: str) -> bool:
    """Whether folded text has the folded term; one that begins with a Latin letter or digit, at the start of a word.

    `pin` is in "pin code" and "pins", not in "shopping"; a Chinese character before it is a boundary too.
    """
    if not _latin(term[:1]):
        return term in folded
    at = folded.find(term)
    while at > 0 and _latin(folded[at - 1]):
        at = folded.find(term, at + 1)
    return at >= 0


def _latin(character: str) -> bool:
    return character.isascii() and character.isalnum()

"""What the text tests of a rule see: text folded so that spelling tricks do not hide a phrase.

Knows characters, not rules. Every text test of the language (`mentions`, `contains`, `starts with`, `ends with`,
`matches`) reads folded text; `==` and `in` read the text as it is. Which characters look alike is Unicode's own list
(confusables, through confusable-homoglyphs), which traditional character is which simplified one is OpenCC's.
"""

import re
import unicodedata
from functools import cache, lru_cache
from typing import Final

# Han, kana and the marks written among them. Hangul is left out: Korean puts meaning into its spaces.
_CJK = "\u3005-\u3007\u3040-\u3098\u309b-\u30ff\u3400-\u9fff\U00020000-\U0003ffff"
_BETWEEN_CJK = re.compile(rf"(?<=[{_CJK}])(?:[^\w\n]|_)+(?=[{_CJK}])")
# Zero-width and direction marks, soft hyphen, variation selectors, unpaired surrogates: they show nothing.
_INVISIBLE = re.compile("[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
                        "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb"
                        "\ud800-\udfff\U000e0000-\U000e0fff]")  # fmt: skip
_LAST: Final = "\uffff"  # one table and one bitmap end here; what looks alike beyond is NFKC's, or in no one's fonts
# Three or more single letters with the same between each two: u-r-g-e-n-t, u r g e n t, u - r - g - e - n - t.
_SPREAD_GAPS: Final = (1, 2, 3)
_SPREAD: Final = tuple(
    re.compile(rf"(?<![a-z0-9'’])[a-z]((?:[^\w'’]|_){{{gap}}})[a-z](?:\1[a-z])+(?![a-z0-9]|['’]\w)")
    for gap in _SPREAD_GAPS
)
# A line's bytes by kind, to see in a moment that nothing is spread: letters, what is inside of words, what is between.
_KINDS: Final = bytes(
    ord("a") if chr(byte).isascii() and chr(byte).isalpha() else ord("d") if chr(byte) in "0123456789'" else ord("-")
    for byte in range(256)
)
_MAY_BE_SPREAD = re.compile(rb"-a-(?:a-a|-a--a|--a---a)")


@lru_cache(maxsize=8192)  # the lines of a conversation come again with each of its events
def _fold_line(line: str) -> str:
    if line.isascii():
        line = line.casefold()
    else:
        line = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", _INVISIBLE.sub("", line)).casefold())
        disguised, plain = _disguises()
        if disguised.search(line):
            line = line.translate(plain)
        line = _BETWEEN_CJK.sub("", line)
    folded = " ".join(line.split())
    if _MAY_BE_SPREAD.search(b"-" + folded.encode().translate(_KINDS)):
        # First as it was written: in `u r g e n t   m o n e y` the wider gap keeps the words apart.
        folded = _gather(" ".join(_gather(line).split()))
    return folded


def _gather(line: str) -> str:
    for spread in _SPREAD:
        line = spread.sub(lambda run: "".join(filter(str.isalpha, run[0])), line)
    return line


@cache
def _disguises() -> tuple[re.Pattern[str], str]:
    """The case-folded characters that stand for another one, and a table for `str.translate` up to the last of them.

    Made when the first line comes that is not ASCII: the two libraries take a tenth of a second to import.
    """
    plain = {**_look_alikes(), **_simplified()}
    table = list(map(chr, range(max(map(ord, plain)) + 1)))
    for character in plain:
        table[ord(character)] = plain[character]
    # A table of every character, not of these few: str.translate is slow where it does not find one.
    return re.compile(f"[{''.join(plain)}]"), "".join(table)


def _look_alikes() -> dict[str, str]:
    """Letters of other scripts that look like a Latin one, in this or the other letter case; accented Latin letters.

    Chinese, Japanese and Korean letters are left alone: what looks Latin in Unicode's list does not among them.
    """
    from confusable_homoglyphs.confusables import confusables_data

    alike = {
        character: target.casefold()
        for character, others in confusables_data.items()
        if len(character) == 1 and character.isalpha() and not character.isascii()
        for target in (other["c"] for other in others)
        if len(target) == 1 and target.isascii() and target.isalpha()
    }
    for code in range(0xC0, 0x250):
        parts = unicodedata.normalize("NFD", chr(code))
        if len(parts) > 1 and parts[0].isascii():
            alike[chr(code)] = parts[0].casefold()
    # As the text is case-folded before: the look of the small letter, or else that of its capital.
    folded = {c.casefold(): look for c, look in alike.items()} | {c: look for c, look in alike.items() if c.islower()}
    skipped = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO")
    return {
        character: look
        for character, look in folded.items()
        if len(character) == 1
        and "\x7f" < character <= _LAST
        and not unicodedata.name(character, "").startswith(skipped)
    }


def _simplified() -> dict[str, str]:
    """Traditional characters and their simplified ones, each by itself, not by the word it stands in."""
    from opencc import OpenCC

    traditional = "\n".join(map(chr, range(0x3400, 0xA000)))
    convert = OpenCC("t2s").convert
    pairs = zip(traditional.split("\n"), convert(convert(traditional)).split("\n"), strict=True)
    return {before: after for before, after in pairs if before != after}


def fold(text: str) -> str:
    """The text with look and spelling evened out, line by line; lines that show nothing are dropped.

    NFKC (full-width to half-width), case folded, invisible characters dropped, letters that look Latin made Latin,
    accents dropped from Latin letters, traditional characters simplified, everything but letters, digits and line
    breaks dropped between two Chinese or Japanese characters (急-用-钱 reads 急用钱), single letters gathered
    (u-r-g-e-n-t reads urgent), blanks run together. A line break stays a boundary, because the lines of a
    conversation are different people.
    """
    return "\n".join(filter(None, map(_fold_line, text.splitlines())))


# What in a regular expression is not literal text, or not to be changed by itself: escapes, groups' heads, ranges.
_NOT_LITERAL = re.compile(
    r"\\[pP]\{[^}]*\}|\\x\{[^}]*\}|\\Q.*?(?:\\E|\Z)|\\.|\(\?[^:)>]*[:)>]|(?P<low>[^\x00-\x7f])-(?P<high>[^\x00-\x7f])",
    re.DOTALL,
)


def fold_pattern(pattern: str) -> str:
    """The regular expression with its literal characters folded, so that it is found in folded text.

    Each character by itself: full-width, look-alike and traditional ones. A range gets the Latin letters besides that
    its characters fold to, so that [а-я] still has every Cyrillic letter. Letter case is the search's to ignore.
    """
    if pattern.isascii():
        return pattern
    parts, at = [], 0
    for kept in _NOT_LITERAL.finditer(pattern):
        parts += [*map(_fold_literal, pattern[at : kept.start()]), kept[0], _folds_of_range(kept["low"], kept["high"])]
        at = kept.end()
    return "".join([*parts, *map(_fold_literal, pattern[at:])])


def _fold_literal(character: str) -> str:
    if character.isascii():
        return character
    folded = _fold_line(character)
    if len(folded) != 1:
        return character
    return folded if not folded.isascii() or folded.isalnum() else "\\" + folded


def _folds_of_range(low: str | None, high: str | None) -> str:
    if low is None or high is None:
        return ""
    _, plain = _disguises()
    folds = {plain[code] for code in range(ord(low), min(ord(high) + 1, len(plain)))}
    return "".join(sorted(fold for fold in folds if fold.isascii()))


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

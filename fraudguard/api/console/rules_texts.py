"""A rule's own document inside its file: found, replaced, added, removed from; and its state as a word of the text.

Pure; knows YAML's document markers and no rule. Everything around the document stays as somebody wrote it.
"""

import re
from difflib import unified_diff
from typing import Final

TEXT_CHARACTERS_MAX: Final = 60_000  # of one rule's document
_MARK: Final = re.compile(r"^---(?:[ \t].*)?$", re.MULTILINE)
_STATE: Final = re.compile(r"^state:[ \t]*[^\s#]*", re.MULTILINE)
_ID: Final = re.compile(r"^id:[ \t]*(\S+)[ \t]*(?:#.*)?$", re.MULTILINE)


def plain(text: str) -> str:
    """As files are kept: line ends as \\n, one at the end, no byte-order mark."""
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").strip("\n") + "\n"


def spans(file: str) -> list[tuple[int, int]]:
    """Where each document begins and ends, the markers left out."""
    found, begin = [], 0
    for mark in _MARK.finditer(file):
        found.append((begin, mark.start()))
        begin = mark.end() + 1
    return [*found, (begin, len(file))]


def documents(files: dict[str, str]) -> dict[str, str]:
    """The text of each rule's document by its id, as far as the text names one."""
    return {
        match[1]: plain(text[begin:end])
        for _, text in sorted(files.items())
        for begin, end in spans(text)
        if (match := _ID.search(text[begin:end]))
    }


def _span(file: str, line: int) -> tuple[int, int]:
    """The document that has this line, counted from 1."""
    offset = sum(len(one) for one in file.splitlines(keepends=True)[: line - 1])
    return next((begin, end) for begin, end in reversed(spans(file)) if begin <= offset)


def document(file: str, line: int) -> str:
    """The text of the document that has this line."""
    begin, end = _span(file, line)
    return plain(file[begin:end])


def replaced(file: str, line: int, text: str) -> str:
    """The file with another text for the document that has this line."""
    begin, end = _span(file, line)
    return file[:begin] + plain(text) + file[end:]


def added(file: str, text: str) -> str:
    """The file with one more document."""
    return plain(file) + "---\n" + plain(text) if file.strip() else plain(text)


def has_mark(text: str) -> bool:
    """Whether the text is more than one document."""
    return _MARK.search(text) is not None


def in_state(text: str, state: str) -> str:
    """The document with this state; as it is if it names none."""
    return _STATE.sub(f"state: {state}", text, count=1)


def difference(before: str, after: str) -> list[str]:
    """The lines of a unified diff without its head; empty if nothing differs."""
    return list(unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=3))[2:]

"""docs/events.md: every example in it is read as it says."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fraudguard.domain import Decision
from fraudguard.errors import BadEvent
from fraudguard.events.dead_letter import DeadLetter
from fraudguard.events.masking import mask_text
from fraudguard.events.schema import encode, json_schemas, parse_event

DOCS = Path(__file__).parents[3] / "docs"
TEXT = (DOCS / "events.md").read_text(encoding="utf-8")


def _blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)\n```", TEXT, re.DOTALL)


REFUSED = re.findall(
    r"### (\w+)\n(?:(?!###).)*?```(json|hex) refused\n(.*?)\n```\n```text\n(.*?)\n```", TEXT, re.DOTALL
)


@pytest.mark.parametrize("example", _blocks("json accepted"), ids=["transaction", "message", "label"])
def test_accepted_examples_are_events(example):
    """Each is read and written again with the same fields."""
    event = parse_event(example.encode())
    assert json.loads(encode(event)) == json.loads(example)


@pytest.mark.parametrize(("code", "form", "example", "told"), REFUSED, ids=[found[0] for found in REFUSED])
def test_refused_examples_are_told_as_written(code, form, example, told):
    """The code is the heading's and the message is the one printed below the example."""
    raw = bytes.fromhex(example) if form == "hex" else example.encode()
    with pytest.raises(BadEvent) as raised:
        parse_event(raw)
    assert (raised.value.code, str(raised.value)) == (code, told)


def test_every_code_is_explained():
    """Each code that the code base gives to an event has its heading."""
    texts = [source.read_text(encoding="utf-8") for source in (DOCS.parent / "fraudguard").rglob("*.py")]
    given = {code for text in texts if "BadEvent(" in text for code in re.findall(r'code="(\w+)"', text)}
    given |= set(re.findall(r'return \(?\s*"(\w+)",', (DOCS.parent / "fraudguard/events/schema.py").read_text()))
    explained = {code for heading in re.findall(r"^### (.*)$", TEXT, re.MULTILINE) for code in heading.split(", ")}
    assert given == explained


def test_the_decision_is_one():
    """The published example is a decision and comes out as it went in."""
    (example,) = _blocks("json decision")
    assert json.loads(encode(Decision.model_validate_json(example))) == json.loads(example)


def test_the_letter_is_one():
    """The envelope printed is what a letter encodes to."""
    (example,) = _blocks("json letter")
    letter = DeadLetter.decode(example.encode())
    assert json.loads(letter.encode()) == json.loads(example)
    assert (letter.key, letter.raw) == (b"a-1", b"oops")
    assert letter.source_time == datetime(2026, 11, 21, 10, tzinfo=UTC)


def test_masking_does_what_it_says():
    """The line shown is masked as shown."""
    (example,) = _blocks("text masked")
    before, after = example.splitlines()
    assert mask_text(before) == after


@pytest.mark.parametrize("name", ["transaction", "message", "label", "decision"])
def test_published_schemas_are_current(name):
    """docs/schemas holds what json_schemas() says now; `fraudguard schemas` writes it."""
    assert json.loads((DOCS / "schemas" / f"{name}.json").read_text(encoding="utf-8")) == json_schemas()[name]

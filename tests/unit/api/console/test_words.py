"""The console's words: both languages say everything, with the same gaps; templates ask for nothing else."""

import re
from importlib import resources
from string import Formatter

import pytest

from fraudguard.api.console.keys import KEYS
from fraudguard.api.console.reasons import REASONS
from fraudguard.api.console.words import Words, catalogue, choose
from fraudguard.decisions.casebook import Disposition
from fraudguard.domain import Message, Outcome, Transaction, Typology


def gaps(text: str) -> set[str]:
    """The names that a text leaves open."""
    return {name for _, name, _, _ in Formatter().parse(text) if name}


def test_both_languages_have_the_same_keys_and_gaps() -> None:
    """A word added to one alone would be missing on half of the desks."""
    english, chinese = catalogue("en"), catalogue("zh")
    assert english.keys() == chinese.keys()
    assert {key: gaps(text) for key, text in english.items()} == {key: gaps(text) for key, text in chinese.items()}


def test_every_word_that_a_template_asks_for_is_there() -> None:
    """By its whole key; keys made from a stored word are the next test's."""
    templates = resources.files("fraudguard.api.console").joinpath("templates")
    asked = set()
    for template in templates.iterdir():
        text = template.read_text("utf-8")
        asked |= set(re.findall(r"""\bt\(["']([a-z_]+\.[a-z_0-9]+)["'][,)]""", text))
        counted = re.findall(r"""\bt\.count\(["']([a-z_]+\.[a-z_]+)["']""", text)
        asked |= {key for one in counted for key in (one, f"{one}_1")}
    assert len(asked) > 80
    assert asked <= catalogue("en").keys()


def test_every_stored_word_is_translated() -> None:
    """Outcomes, typologies, dispositions, reasons, actions, and what events may say."""
    sent = {
        "sender": Message.model_fields["sender"].annotation.__args__,
        "kind": Transaction.model_fields["kind"].annotation.__args__,
        "pay": Transaction.model_fields["direction"].annotation.__args__,
        "channel": (
            *Transaction.model_fields["channel"].annotation.__args__,
            *Message.model_fields["channel"].annotation.__args__,
        ),
        "outcome": tuple(Outcome),
        "typology": (*Typology, "none"),
        "disposition": tuple(Disposition),
        "reason": tuple(reason.code for reason in REASONS),
        "key": tuple(key.action for key in KEYS),
    }
    wanted = {f"{page}.{word}" for page, words in sent.items() for word in words}
    assert wanted <= catalogue("en").keys()


@pytest.mark.parametrize(
    ("cookie", "accepted", "chosen"),
    [
        ("zh", "en-US,en;q=0.9", "zh"),
        (None, "zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        (None, "fr-FR,en-GB;q=0.7", "en"),
        ("fr", "", "en"),
    ],
)
def test_the_language_is_the_chosen_one_then_the_browsers(cookie: str | None, accepted: str, chosen: str) -> None:
    """English where neither says one of ours."""
    assert choose(cookie, accepted) == chosen


def test_a_number_takes_its_noun() -> None:
    """One alert, two alerts; a word that is not stored comes back as it is."""
    words = Words("en")
    assert [words.count("queue.alerts", n) for n in (1, 2, 1_000)] == ["1 alert", "2 alerts", "1,000 alerts"]
    assert words.either("reason.called the customer", "called the customer") == "called the customer"

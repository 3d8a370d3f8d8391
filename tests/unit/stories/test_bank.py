"""The phrase bank as data: what authors must keep."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from fraudguard.domain import Typology
from fraudguard.errors import BadInput
from fraudguard.stories import bank


def _said(node: Any) -> Iterator[str]:
    """Every phrase that somebody may say, as written."""
    if isinstance(node, dict):
        for key, value in node.items():
            if bank._SAY.fullmatch(key):
                yield from value
            else:
                yield from _said(value)
    elif isinstance(node, list):
        for item in node:
            yield from _said(item)


def test_no_long_phrase_stands_in_two_lists() -> None:
    """Else one list could give it to training and the other to the held-out split."""
    counts = Counter(
        text.strip(".。?？!！").lower() for document in bank._documents().values() for text in _said(document)
    )
    assert [text for text, count in counts.items() if count > 1 and len(text) >= 12] == []


def test_the_bank_is_broad() -> None:
    """Thousands of phrases a language, plots of every kind in both, and no fewer hard harmless plots than scams."""
    said = [text for document in bank._documents().values() for text in _said(document)]
    chinese = sum(any("一" <= c <= "鿿" for c in text) for text in said)
    assert chinese >= 4500
    assert len(said) - chinese >= 2200
    plots = bank.load("train").plots
    for language in bank.LANGUAGES:
        assert len(plots["harmless", language]) >= len(plots["scam", language]) >= 35
        assert all(len(plots[kind.value, language]) >= 4 for kind in Typology)


def test_slot_values_are_disjoint() -> None:
    """A person, bank or shop that training names is never met in the held-out split."""
    train, held_out = bank.load("train").slots, bank.load("heldout").slots
    assert train.keys() == held_out.keys()
    for key, values in train.items():
        assert not set(values) & set(held_out[key]), key


@pytest.mark.parametrize(
    ("beats", "message"),
    [
        ([{"them": ["one way only"]}], "two variants"),
        ([{"them": ["你好$nothing", "您好$nothing"]}], "nothing fills"),
        ([{"pay": {"sum": "unnamed"}}], "unknown sum"),
        ([{"pay": {"sum": "a", "colour": "red"}}], "unknown options"),
        (["dance"], "unknown beat"),
        ([{"use": ["x"]}], "unknown beat"),
        (["use nowhere"], "nowhere"),
    ],
)
def test_a_mistake_in_a_plot_is_refused_with_its_place(
    beats: list[Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An author reads which plot is wrong and why."""
    documents = bank._documents()
    plot = {"name": "broken", "lang": "zh", "title": "t", "sums": {"a": "1-2"}, "beats": beats}
    documents["broken.yaml"] = {"kind": "scam", "plots": [plot]}
    monkeypatch.setattr(bank, "_documents", lambda: documents)
    with pytest.raises(BadInput, match=message) as caught:
        bank.load.__wrapped__("train")
    assert "broken" in caught.value.path

"""The phrase notation and the sharing out of variants."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fraudguard.stories.phrase import parse, share_out


def test_a_phrase_says_every_choice_and_fills_its_slots() -> None:
    """Nested choices and slots give exactly the sentences written."""
    phrase = parse("转<$amt|<五|六>万>到$card2。")
    rng = Random(1)
    said = {phrase.say(rng, lambda name: f"[{name}]") for _ in range(200)}
    assert said == {"转[amt]到[card2]。", "转五万到[card2]。", "转六万到[card2]。"}
    assert phrase.slots() == {"amt", "card2"}


@pytest.mark.parametrize("text", ["<a|b", "a>", "a|b"])
def test_unpaired_signs_are_refused(text: str) -> None:
    """A phrase whose brackets do not pair is an author's mistake, never text."""
    with pytest.raises(ValueError, match=r"unpaired|outside"):
        parse(text)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(min_size=1), min_size=2, max_size=12, unique=True), st.randoms())
def test_the_splits_share_out_every_variant_once(variants: list[str], rng: Random) -> None:
    """Both splits get something, nothing goes to both, and the order of writing does not matter."""
    train, held_out = share_out(variants, False), share_out(variants, True)
    assert train
    assert held_out
    assert sorted(train + held_out) == sorted(variants)
    shuffled = list(variants)
    rng.shuffle(shuffled)
    assert share_out(shuffled, True) == held_out

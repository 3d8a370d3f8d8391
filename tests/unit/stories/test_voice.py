"""Amounts and identifiers as people write them."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fraudguard.stories import voice


def test_amounts_are_said_in_the_ways_of_each_language() -> None:
    """30,000 yuan has these Chinese wordings; 5,000 dollars these English ones."""
    rng = Random(0)
    assert {voice.spoken(rng, "zh", "CNY", 30000.0) for _ in range(300)} == {
        "30000", "30000元", "3万", "3万块", "三万", "30,000.00元",
    }  # fmt: skip
    assert {voice.spoken(rng, "en", "USD", 5000.0) for _ in range(300)} == {
        "$5,000", "5,000 dollars", "USD 5,000", "$5k",
    }  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(st.randoms(), st.floats(1, 1e6), st.floats(1.01, 50))
def test_rounding_never_leaves_the_bounds(rng: Random, low: float, factor: float) -> None:
    """A sum meant to stay below a reporting limit stays there, but for the last unit."""
    value = voice.draw(rng, low, low * factor, exact=False)
    assert low - 1 <= value <= low * factor + 1


def test_cards_pass_the_check_that_masking_relies_on() -> None:
    """Cards carry a valid Luhn digit and stand under prefixes nobody issues."""
    rng = Random(0)
    for language in ("zh", "en"):
        card = voice.COMPUTED["card"](rng, language)
        doubled = [int(d) * (2 if i % 2 else 1) for i, d in enumerate(reversed(card))]
        assert sum(d - 9 if d > 9 else d for d in doubled) % 10 == 0


@pytest.mark.parametrize("language", ["zh", "en"])
def test_noise_keeps_links_and_notices_intact(language: str) -> None:
    """A typed address is never misspelt, and a careless person changes plain text at times."""
    rng = Random(0)
    link = "go to https://m-100.example/a1 now"
    plain = "我的账户在哪里登录的，你知道吗" if language == "zh" else "please don't tell anyone because I'm late"
    assert all(voice.roughen(rng, language, "chat", link, 1.0) == link for _ in range(50))
    assert len({voice.roughen(rng, language, "chat", plain, 1.0) for _ in range(50)}) > 5


def test_a_careless_chinese_typist_sends_a_clause_at_a_time() -> None:
    """Nothing is lost but the commas; a careful one, a caller and a link are left whole."""
    rng = Random(0)
    text = "我在开会，不方便接电话，打字说。"
    split = [pieces for _ in range(60) if len(pieces := voice.clauses(rng, "chat", text, 1.0)) > 1]
    assert split
    assert all(pieces == ["我在开会", "不方便接电话", "打字说。"] for pieces in split)
    for channel, said, sloppiness in (
        ("chat", text, 0.0),
        ("call", text, 1.0),
        ("chat", f"点 https://a.example，{text}", 1.0),
    ):
        assert all(voice.clauses(rng, channel, said, sloppiness) == [said] for _ in range(60))


def test_a_transcript_reads_long_numbers_out_but_never_amounts() -> None:
    """A code is said digit by digit at times; a sum of money keeps its figures."""
    rng = Random(0)
    heard = {voice.roughen(rng, "zh", "call", "验证码是112233，转300000元", 0.0) for _ in range(200)}
    assert any("幺幺二二三三" in text for text in heard)
    assert any("一一二二三三" in text for text in heard)
    assert all("300000元" in text for text in heard)
    assert any(
        "one one two two three three" in voice.roughen(rng, "en", "call", "it is 112233", 0.0) for _ in range(60)
    )

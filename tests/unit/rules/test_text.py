"""Folding text: what looks like a phrase reads like it, and what does not stays apart."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fraudguard.rules.text import fold, fold_pattern, mentions
from fraudguard.rules.validators import compile_pattern

TRICKY = "急用钱錢裏 -。\u200bｶﾞAaßıİéаβΒνъ.'’_bc"


@pytest.mark.parametrize(
    "disguised",
    [
        "急用钱",
        "急-用-钱",
        "急 用 钱",
        "急。用、钱",
        "急\u200b用\u200d钱",
        "急🔥用🔥钱",
        "急_用*钱",
        "急　用　钱",
        "急\ufe0f用钱",
        "急⽤钱",
        "急用錢",
        "急-用-錢",
    ],
)
def test_a_phrase_is_found_in_its_disguises(disguised):
    """Spaces, punctuation, emoji and invisible characters between Chinese characters hide nothing."""
    assert mentions(fold(f"我{disguised}！"), fold("急用钱"))


@pytest.mark.parametrize(
    "disguised",
    [
        "URGENT MONEY",
        "urgent   money",
        "ｕｒｇｅｎｔ ｍｏｎｅｙ",
        "𝐮𝐫𝐠𝐞𝐧𝐭 money",
        "urg\u00adent money",
        "\turgent\u00a0money",
        "u-r-g-e-n-t money",
        "U.R.G.E.N.T m*o*n*e*y",
        "u r g e n t   m o n e y",
        "u - r - g - e - n - t  money",
        "u_r_g_e_n_t money",
        "u•r•g•e•n•t money",
        "urgеnt mоney",
        "URGΕNТ МОNЕY",
        "սrgent money",
        "urgꭼnt money",
        "ürgént möney",
    ],
)
def test_an_english_phrase_is_found_in_its_disguises(disguised):
    """Letter case, full-width and mathematical letters, soft hyphens and odd blanks hide nothing."""
    assert mentions(fold(disguised), fold("urgent money"))


def test_a_line_break_keeps_two_speakers_apart():
    """What one says at the end and another at the beginning is no phrase."""
    assert "急用钱" not in fold("我很急\n用钱的时候再说")


@pytest.mark.parametrize(
    ("text", "term", "found"),
    [
        ("shopping", "pin", False),
        ("pin code", "pin", True),
        ("my pins", "pin", True),
        ("shopping for a pin", "pin", True),
        ("输入pin码", "pin", True),
        ("a1pin", "pin", False),
        ("gift cards", "gift card", True),
        ("转账后", "账", True),
    ],
)
def test_a_latin_term_begins_at_the_start_of_a_word(text, term, found):
    """A short English word is not found inside another; Chinese has no such boundary."""
    assert mentions(fold(text), fold(term)) is found


def test_latin_spacing_and_korean_spacing_keep_their_meaning():
    """Only between Chinese or Japanese characters is spacing dropped."""
    assert fold("Pay  now") == "pay now"
    assert fold("돈 좀") == "돈 좀"
    assert fold("付 now 款") == "付 now 款"


@settings(max_examples=1000, deadline=None)
@given(
    st.text(
        alphabet=st.characters(codec="utf-8") | st.sampled_from("急用钱錢裏 -。\u200bｶﾞAaßıİéаβΒνъ.'’_bc"), max_size=30
    )
)
def test_folded_text_stays_as_it_is(text):
    """Folding twice is folding once, so terms and texts may be folded independently."""
    assert fold(fold(text)) == fold(text)


@pytest.mark.parametrize("kept", ["it's a b", "e.g. this", "i am a man", "7 a 8 b", "vitamin b c", "don't i i"])
def test_a_few_single_letters_are_not_gathered(kept):
    """Two letters beside each other, or a word's last behind an apostrophe, are how people write."""
    assert fold(kept) == kept


@pytest.mark.parametrize(
    ("text", "term"),
    [("Переведи деньги картой", "карт"), ("вопрос", "рос"), ("ΤΙ ΚΑΝΕΙΣ", "κανει"), ("перевод", "ПЕРЕВОД")],
)
def test_other_scripts_find_their_own_words(text, term):
    """A Russian or Greek phrase folds as the text does, letter by letter, so that parts of words are found too."""
    assert fold(term) in fold(text)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("急.?用錢", "急用钱"),
        ("急.?用钱", "急用錢"),
        ("（急）", "（急）"),
        (r"\bмoney", "money"),
        ("[а-яё]{6}", "привет"),
        ("[аеё]нь", "день"),
        ("é+", "eé"),
        (r"[一-龥]{2}", "急錢"),
        (r"\p{Han}", "急"),
        (r"\Qa?\E錢", "a?钱"),
        ("(?P<x>錢)", "钱"),
        ("ｐ＋", "p+"),
    ],
)
def test_the_literals_of_a_pattern_are_folded_as_the_text_is(pattern, text):
    """What somebody copies from a message into `matches` finds the message."""
    assert compile_pattern(pattern).search(fold(text))


def test_an_ascii_pattern_stays_as_it_is():
    """Nothing of a plain pattern is rewritten."""
    pattern = r"(?i)\bpin[a-z]*\d{2}\Q.\E"
    assert fold_pattern(pattern) == pattern

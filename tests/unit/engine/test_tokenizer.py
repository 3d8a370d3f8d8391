"""LineTokenizer: lines by themselves, no control tokens from people's text, no torch."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from releases import PREFIX, SHAPES, make_tokenizer, request_of
from tokenizers import Tokenizer, models, pre_tokenizers

from fraudguard.engine.release import open_release
from fraudguard.engine.tokenizer import LineTokenizer
from fraudguard.errors import BadModel

STARTER = LineTokenizer(open_release("starter").base)
LINES = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=40)


@settings(max_examples=100, deadline=None)
@given(lines=st.lists(LINES, min_size=1, max_size=6))
def test_a_timeline_is_the_concatenation_of_its_lines(lines: list[str]) -> None:
    """A line's ids do not depend on its neighbours, its count is their number, and every text comes back."""
    alone = [STARTER.encode(line) for line in lines]
    fresh = LineTokenizer(open_release("starter").base)
    assert [fresh.encode(line) for line in reversed(lines)] == alone[::-1]
    assert [STARTER.count(line) for line in lines] == [len(ids) for ids in alone]
    raw = Tokenizer.from_file(str(open_release("starter").base / "tokenizer.json"))
    ids = [token for line in alone for token in line]
    assert raw.decode(ids, skip_special_tokens=False) == "".join(f"{line}\n" for line in lines)


def test_the_line_end_stands_at_the_end_only() -> None:
    """Every line closes with the same token, which no text without a break contains."""
    ends = {STARTER.encode(line)[-1] for line in ("", "a", "急用钱", "[pay out CNY 1]")}
    assert len(ends) == 1
    assert not ends & set(STARTER.encode("customer: hello there, 你好 / a. b")[:-1])


def test_text_cannot_become_a_control_token(ready_releases: Callable[[str], Path]) -> None:
    """What people write is spelled out, even when it reads like a special token."""
    for release, written in (
        (open_release("starter").base, "<|endoftext|>"),
        (ready_releases("qwen25") / "base", "<|im_start|>"),
    ):
        special = Tokenizer.from_file(str(release / "tokenizer.json")).token_to_id(written)
        assert special is not None
        assert special not in LineTokenizer(release).encode(f"a {written} b")


def test_the_id_is_the_content() -> None:
    """Equal files have equal ids, other files others."""
    base = open_release("starter").base
    assert LineTokenizer(base / "tokenizer.json").id == STARTER.id


def test_the_id_changes_with_the_content(ready_releases: Callable[[str], Path]) -> None:
    """Another tokenizer has another id, so stored counts are counted again."""
    assert LineTokenizer(ready_releases("qwen25") / "base").id != STARTER.id


def test_a_missing_or_damaged_file_is_refused(tmp_path: Path) -> None:
    """The error says which file."""
    with pytest.raises(BadModel, match=r"no tokenizer\.json"):
        LineTokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(BadModel, match="cannot be read"):
        LineTokenizer(tmp_path)


def test_a_tokenizer_without_a_line_end_is_refused(tmp_path: Path) -> None:
    """A line end of several tokens or none could not be read at."""
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(BadModel, match="line end is 0 tokens"):
        LineTokenizer(tmp_path)


def test_the_last_ids_of_lines_are_kept() -> None:
    """Lines one after the other; of too many tokens the first go, also in the middle of a line."""
    first, second = STARTER.encode("customer: 急用钱"), STARTER.encode("agent: hello")
    both = request_of("customer: 急用钱", "agent: hello").timeline
    assert STARTER.encode_timeline(both, 100) == first + second
    assert STARTER.encode_timeline(both, len(second) + 1) == first[-1:] + second


def test_a_prefix_may_hold_control_tokens(tmp_path: Path) -> None:
    """A release's text may, what people write may not, before and after; without a line end of its own."""
    make_tokenizer(tmp_path, SHAPES["qwen25"]["special"])
    tokenizer = LineTokenizer(tmp_path)
    raw = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    written = tokenizer.encode("<|im_start|>system")
    assert raw.token_to_id("<|im_start|>") not in written
    assert tokenizer.encode_prefix(PREFIX) == tuple(raw.encode(PREFIX, add_special_tokens=False).ids)
    assert tokenizer.encode_prefix(PREFIX).count(raw.token_to_id("<|im_start|>")) == 1
    assert LineTokenizer(tmp_path).encode("<|im_start|>system") == tokenizer._tokenize("<|im_start|>system") == written
    assert tokenizer.encode_prefix("") == ()


def test_counting_needs_no_torch() -> None:
    """A process that only counts tokens imports neither torch nor transformers."""
    code = (
        "import sys; from fraudguard.engine.release import open_release;"
        "from fraudguard.engine.tokenizer import LineTokenizer;"
        "assert LineTokenizer(open_release('starter').base).count('a') >= 2;"
        "assert not {'torch', 'transformers', 'peft'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr

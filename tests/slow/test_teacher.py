"""The teachers of the starter's base, downloaded: what means the same lies closer than what does not."""

from pathlib import Path

import numpy as np
import pytest

from finetune.teacher import Language, Teacher, fetch
from fraudguard.errors import BadInput

pytestmark = pytest.mark.slow

TALK: dict[Language, tuple[str, str, str]] = {
    "zh": ("我的银行卡被冻结了", "银行账户不能用了", "今天天气很好"),
    "en": ("my card is blocked", "the bank account does not work", "nice weather today"),
}


@pytest.mark.parametrize("language", TALK)
def test_likeness(language: Language) -> None:
    """Unit length, and the same vector whatever else is embedded beside it."""
    teacher = Teacher(language, 1)
    vectors = teacher.embed(TALK[language])
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(3), rel=1e-5)
    same, other = vectors[0] @ vectors[1], vectors[0] @ vectors[2]
    assert same > other + 0.1
    # int8: the scale of a batch's activations is the batch's.
    assert teacher.embed(TALK[language][:1])[0] @ vectors[0] > 0.99


def test_another_file_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was downloaded must be what was locked; nothing is left behind."""
    monkeypatch.setitem(__import__("finetune.teacher", fromlist=["SHA256"]).SHA256, "zh", "0" * 64)
    with pytest.raises(BadInput, match="not the file that was locked"):
        fetch("zh", tmp_path)
    assert not list(tmp_path.iterdir())

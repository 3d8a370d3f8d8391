"""Near-duplicates: one script with other names and sums is found, another talk on the same matter is not."""

from itertools import combinations
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.twins import ALIKE, SHINGLES_MIN, Twins, likeness, shingles

ZH = (
    "您好，我是某某银行客服，您的账户今天有一笔{n}元的异常转账，为了您的资金安全，请马上按我说的操作，"
    "先打开手机银行，再把余额转到安全账户，卡号是{m}。"
)
EN = (
    "Hello, this is {name} from the billing desk. Your card was charged {n} dollars by mistake; to get it back, "
    "please install the app I am about to send you and read me the code."
)
GENUINE = (
    "这里是银行，检测到您的卡片在外地有消费，如果不是本人，请拨打背面的电话核实；我们不会要求您转账，也不会索要验证码，"
    "请您放心，卡号是6222。"
)


def test_one_script_with_other_sums_is_a_twin() -> None:
    """Digits, case, spaces and marks do not count; names count, but few of them do not part twins."""
    for one, other in (
        (ZH.format(n="5,000", m="6222"), ZH.format(n=49800, m="9911 2200").replace("，", " ")),
        (EN.format(name="Karen", n=499), EN.format(name="Michael", n="1,299").upper()),
    ):
        first, second = shingles(one), shingles(other)
        assert first is not None
        assert second is not None
        assert likeness(first, second) >= ALIKE
        known: Twins[str] = Twins()
        known.add("first", first)
        assert known.of(second) == ["first"]


def test_another_talk_is_no_twin() -> None:
    """The same matter in other words; the other language; a text that merely ends alike."""
    known: Twins[str] = Twins()
    texts = (ZH.format(n=1, m=2), EN.format(name="Karen", n=1), GENUINE)
    for text in texts:
        made = shingles(text)
        assert made is not None
        assert known.of(made) == []
        known.add(text, made)


def test_what_everybody_says_is_nobodys_twin() -> None:
    """Short talk repeats by nature."""
    assert shingles("好的，谢谢！" * 3) is None
    assert shingles("") is None
    assert shingles("12345 67890 " * 40) is None


@given(st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_no_twin_is_missed(seed: int) -> None:
    """What MinHash finds is what every pair compared finds, for pairs clearly beyond the threshold."""
    rng = Random(seed)
    alphabet = "你我他转账验证码安全账户客服警官投资理财平台充值提现"
    texts = ["".join(rng.choices(alphabet, k=rng.randrange(60, 160))) for _ in range(6)]
    for _ in range(6):
        mother = rng.choice(texts)
        cut = rng.randrange(len(mother))
        texts.append(mother[:cut] + "".join(rng.choices(alphabet, k=rng.randrange(60))) + mother[cut:])
    made = [of for of in map(shingles, texts) if of is not None]
    known: Twins[int] = Twins()
    for number, of in enumerate(made):
        known.add(number, of)
    for one, other in combinations(range(len(made)), 2):
        alike = likeness(made[one], made[other])
        if alike >= ALIKE + 0.15:
            assert other in known.of(made[one])
        elif alike < ALIKE:
            assert other not in known.of(made[one])


def test_the_threshold_is_half() -> None:
    """Half of all shingles of both."""
    whole = shingles("".join(chr(0x4E00 + n) for n in range(124)))  # 120 shingles
    half = shingles("".join(chr(0x4E00 + n) for n in range(64)))  # 60 of them
    assert whole is not None
    assert half is not None
    assert likeness(whole, half) == 0.5
    assert len(half) >= SHINGLES_MIN

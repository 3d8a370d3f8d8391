"""Masking: what identifies people is hidden, what the model needs stays."""

import re
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fraudguard.domain import Label, Message, Transaction
from fraudguard.errors import BadSettings
from fraudguard.events.masking import mask_event, mask_text, open_sealed, seal

HIDDEN = [
    ("我的手机号码是13812345678", "我的手机号码是<PHONE>"),
    ("电话138-1234-5678，谢谢", "电话<PHONE>，谢谢"),
    ("138 1234 5678", "<PHONE>"),
    ("1381 234 5678", "<PHONE>"),
    ("+86 138 1234 5678", "<PHONE>"),
    ("(86)13812345678", "<PHONE>"),
    ("0086-138-1234-5678", "<PHONE>"),
    ("010-12345678转5000", "<PHONE>转5000"),
    ("(021) 6888 8888", "<PHONE>"),
    ("0755 1234567", "<PHONE>"),
    ("客服400-800-8888", "客服<PHONE>"),
    ("call (415) 555-2671 or 415.555.2671", "call <PHONE> or <PHONE>"),
    ("1-800-555-0199", "<PHONE>"),
    ("my number is 555-1234. And", "my number is <PHONE>. And"),
    ("+44 20 7946 0958", "<PHONE>"),
    ("身份证11010519491231002X", "身份证<ID>"),
    ("110105 19491231 002x", "<ID>"),
    ("11010519491231002X和110101199003074514", "<ID>和<ID>"),
    ("37052219590816XXXX没有，123456789012345678不是", "<ACCOUNT>XXXX没有，<ACCOUNT>不是"),
    ("My SSN is 078-05-1120", "My SSN is <ID>"),
    ("078 05 1120", "<ID>"),
    ("4111111111111111", "<CARD>"),
    ("4111-1111-1111-1111", "<CARD>"),
    ("4111 1111 1111 1111 5000元", "<CARD> 5000元"),
    ("3782 822463 10005", "<CARD>"),
    ("账户：6228 1234 5678 9101，账户名", "账户：<ACCOUNT>，账户名"),
    ("卡号6222021234567890123", "卡号<ACCOUNT>"),
    ("QQ号是12345678 千万别告诉别人", "QQ号是<ACCOUNT> 千万别告诉别人"),
    ("account 12-3456-7890123", "account <ACCOUNT>"),
    ("6 2 1 7 0 0 1 2 3", "<ACCOUNT>"),
    ("GB82 WEST 1234 5698 7654 32 THEN", "<ACCOUNT> THEN"),
    ("DE89370400440532013000", "<ACCOUNT>"),
    ("passport E12345678", "passport E<ACCOUNT>"),
    ("zhang.san+x@example.com.cn联系", "<EMAIL>联系"),
    ("验证码是123456。", "验证码是<CODE>。"),
    ("654321 是您的验证码", "<CODE> 是您的验证码"),
    ("Your verification code, which is 7421. You", "Your verification code, which is <CODE>. You"),
    ("code: 123-456", "code: <CODE>"),
    ("OTP 12345678", "OTP <CODE>"),
    ("CVV 123", "CVV <CODE>"),
    ("密码是98，验证码9876 千万别说", "密码是98，验证码<CODE> 千万别说"),
    ("１３８１２３４５６７８", "<PHONE>"),
    ("１３８－１２３４－５６７８", "<PHONE>"),
    ("٠١٢٣٤٥٦٧٨٩", "<ACCOUNT>"),
    ("①③⑧①②③④⑤⑥⑦⑧", "<PHONE>"),
    ("1\u200b3\u200b8\u200b1\ufeff2345678", "<PHONE>"),
    ("138\u200b-\u200b1234\u2060-\u00ad5678", "<PHONE>"),
    ("1️⃣3️⃣8️⃣1️⃣2️⃣3️⃣4️⃣5️⃣6️⃣7️⃣8️⃣", "<PHONE>"),
    ("一三八一二三四五六七八", "<PHONE>"),
    ("卡号六二二八四八零零一二", "卡号<ACCOUNT>"),
    ("abc＠example．com", "<EMAIL>"),
    ("138\u20111234\u20115678", "<PHONE>"),
]  # fmt: skip

KEPT = [
    "50,000", "50000元", "￥12,000.50", "$3000", "转账15000000元", "￥ 15000000", "RMB 15000000", "15000000.00",
    "转15000000", "123,456,789", "500万", "12345678.9 USD", "10-20万", "5000-10000元", "1000-20000", "500-1000",
    "500 1000 2000 5000", "1000 1000多家", "2025 2026 2027", "2026-11-21 10:00:00", "20261121", "2026年11月21日 13:05",
    "21/11/2026", "2026/1/2", "10:30-11:45", "order 4521", "订单 123456", "尾号1234", "12345 or 1234567",
    "我输入了验证码，怎么银行发来短信说我消费了8000元", "把验证码给我 然后转 5000", "send the code and pay 5000",
    "My zip code is 94105", "验证码 2026年", "192.168.10.20", "version 1.2.3", "3.14159", "第3期 2026001 期",
    "一二三", "二零二六年十一月二十一日", "五万元", "急用钱，先转到安全账户", "no digits at all", "👨‍👩‍👧 ok", "",
    "<CODE> 1234", "<PHONE> or <ACCOUNT>", "95588", "+50000", "100%",
]  # fmt: skip


@pytest.mark.parametrize(("text", "masked"), HIDDEN)
def test_what_identifies_people_is_hidden(text, masked):
    """Each kind of number, in the ways that people write it."""
    assert mask_text(text) == masked


@pytest.mark.parametrize("text", KEPT)
def test_what_the_model_needs_stays(text):
    """Amounts, dates, times and short numbers are untouched."""
    assert mask_text(text) == text


_pieces = st.sampled_from(
    [before for before, _ in HIDDEN] + KEPT
    + ["code ", "验证码", " is ", "是", "元", "$", "万", "a@b.cc", "\u200b", "\n", "<", ">", *" -+().,@"]
)  # fmt: skip
_digits = st.text("0123456789０５①一八 -.,:+@<>xX元code是\u200b", max_size=30)


@settings(max_examples=500, deadline=None)
@given(st.lists(_pieces | _digits | st.text(max_size=5), max_size=8).map("".join))
@example("code 13800138000 1234")
@example("1234 code 12345678 is 1234 验证码")
@example("\u200b1" * 12)
def test_masking_twice_is_masking_once(text):
    """Idempotent, at most half longer, and no run of ten digits is ever left."""
    masked = mask_text(text)
    assert mask_text(masked) == masked
    assert len(masked) <= 1.5 * len(text)
    assert not re.search(r"\d{10}", masked)


_around = st.text("的我你他到在给了 ，。:abcxyz，", max_size=12)


@settings(max_examples=200, deadline=None)
@given(
    _around,
    _around,
    st.from_regex(r"1[3-9][0-9]{9}|[1-9][0-9]{15,18}", fullmatch=True),
    st.sampled_from(["", " ", "-"]),
)
def test_a_number_does_not_survive_any_words_around_it(before, after, number, separator):
    """A mobile (3-4-4) or card number (by fours) is gone, whatever stands beside it."""
    sizes = [3, 4, 4] if len(number) == 11 else [4, 4, 4, 4, 4]
    parts, rest = [], number
    for size in sizes:
        parts.append(rest[:size])
        rest = rest[size:]
    written = separator.join(filter(None, parts))
    masked = mask_text(f"{before}{written}{after}")
    assert sum(char.isdigit() for char in masked) < 4


@settings(max_examples=200, deadline=None)
@given(_around, st.integers(1, 999_999_999), st.sampled_from(["元", "块钱", "万", " dollars", "美元", " 元"]), _around)
def test_an_amount_survives(before, amount, unit, after):
    """Below a billion, with its unit or with its separators, in any words."""
    for written in (f"{amount}{unit}", f"￥{amount:,}.50", f"${amount}"):
        text = f"{before} {written} {after}"
        assert written in mask_text(text)


HOSTILE = [
    "1" * 8000, "1 " * 4000, "12-" * 2666, "a" * 8000, "a@" * 4000, "a@a." + "a." * 3998, "GB82" * 2000, "code " * 1600,
    "code 12 " * 1000, "\u200b" * 8000, "1\u200b" * 4000, "+1(" * 2666, "(" * 8000, "一" * 8000, "12 345 6789-" * 666,
    "1234 " * 1600, ("a" * 64 + "@") * 123, "密码" * 3999 + "1", "1234 is " * 1000, "1,234" * 1600,
    "code 1234 is " * 615, "+" * 7999 + "1", "1.1" * 2666, "＠" * 8000, "9" + " " * 7998 + "9",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: text[:12])
def test_hostile_text_costs_no_more_than_its_length(text):
    """Twenty microseconds a character at most (usually below one), where a quadratic pattern would take minutes."""
    start = time.process_time()
    masked = mask_text(text)
    assert time.process_time() - start < 20e-6 * len(text)
    assert mask_text(masked) == masked


MESSAGE = Message(
    type="message", version=1, event_id="m-13800138000", account_id="13800138000", event_time="2026-11-21T10:00:00Z",
    conversation_id="k-1", channel="chat", sender="customer", text="call 13800138000",
    attributes={"note": "a@example.com", "n": 13800138000, "ok": True},
)  # fmt: skip


def test_events_are_masked_where_people_write():
    """Texts, memos and attribute texts; ids, numbers and labels stay as they are."""
    masked = mask_event(MESSAGE)
    assert masked == MESSAGE.model_copy(
        update={"text": "call <PHONE>", "attributes": {"note": "<EMAIL>", "n": 13800138000, "ok": True}}
    )
    transaction = Transaction(
        type="transaction", version=1, event_id="t-1", account_id="a-1", event_time="2026-11-21T10:00:00Z",
        direction="debit", kind="transfer", channel="app", amount="1.00", currency="CNY", memo="房租 13800138000",
    )  # fmt: skip
    assert mask_event(transaction).memo == "房租 <PHONE>"
    label = Label(
        type="label", version=1, event_id="l-1", account_id="a-1", event_time="2026-11-21T10:00:00Z",
        target_event_id="13800138000", source="analyst", verdict="fraud",
    )  # fmt: skip
    assert mask_event(label) == label


@pytest.mark.parametrize("text", ["code1234 " * 888, "验证码1234" * 1142, "PIN 123," * 1000, "12345678 " * 888])
def test_masked_events_stay_within_their_bounds(text):
    """Masks that are longer than what they hide push no text over its bound, and masking again changes nothing."""
    masked = mask_event(MESSAGE.model_copy(update={"text": text[:8000]}))
    assert len(masked.text) <= 8000
    assert Message.model_validate_json(masked.model_dump_json()) == masked
    assert mask_event(masked) == masked


def test_sealed_text_opens_with_its_key_only():
    """Fernet round trip; another key, a damaged token and a malformed key are told as settings errors."""
    key, other = "A" * 43 + "=", "B" * 43 + "="
    token = seal("急用钱 13800138000", key)
    assert b"138" not in token
    assert open_sealed(token, key) == "急用钱 13800138000"
    with pytest.raises(BadSettings, match="not sealed with this key"):
        open_sealed(token, other)
    with pytest.raises(BadSettings, match="not sealed with this key"):
        open_sealed(token[:-4], key)
    with pytest.raises(BadSettings, match="not a Fernet key"):
        seal("x", "short")

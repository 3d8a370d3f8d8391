"""Hides what identifies people in free text, and keeps what the model needs: amounts, times, dates, short numbers.

Knows shapes of numbers and the words around them (Chinese, English); knows nothing of Kafka or of where text is kept.
What it finds becomes <CARD>, <ID>, <PHONE>, <ACCOUNT>, <EMAIL> or <CODE>. Numbers are read on a shadow of the text, of
the same length, in which every script's digits are ASCII digits; characters without width are dropped beside digits.
All patterns have bounded repetition, so the time is linear in the text (tested on hostile input).
"""

import re
import unicodedata
from typing import Final, TypeVar, cast

from cryptography.fernet import Fernet, InvalidToken

from fraudguard.domain import ATTRIBUTE_CHARS_MAX, MEMO_CHARS_MAX, TEXT_CHARS_MAX, Label, Message, Transaction
from fraudguard.errors import BadSettings

E = TypeVar("E", bound=Transaction | Message | Label)

# A number this long without a mark of money is an account, whatever it is.
LONG_DIGITS: Final = 8
# Money is kept up to this many digits before the decimal point: below a billion.
MONEY_DIGITS_MAX: Final = 9
PASSES_MAX: Final = 8

# Without width, or a keycap's frame: they hide digits from patterns and from nobody else.
_UNSEEN = "\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufe0e\ufe0f\ufeff\u20e3"
_BESIDE_DIGITS = re.compile(rf"(?<=\d)[{_UNSEEN}]+|[{_UNSEEN}]+(?=[\d(+-])|(?<=[-( .])[{_UNSEEN}]+")
_HAS_UNSEEN = re.compile(f"[{_UNSEEN}]")

# Digits as spoken; 幺 is "one" in numbers that are read out.
_SPOKEN = "零〇一二三四五六七八九幺壹贰叁肆伍陆柒捌玖"
_SPOKEN_RUN = re.compile(rf"[{_SPOKEN}]{{{LONG_DIGITS},}}")
_WORTH_A_LOOK = re.compile(rf"\d(?:\D*\d){{2}}|@|＠|[{_SPOKEN}]{{{LONG_DIGITS}}}|[⁰-₉①-⓿❶-➓]")

_CURRENCY_BEFORE = re.compile(
    r"(?:[¥$€£₩₹]|RMB|CNY|USD|EUR|GBP|HKD|JPY|人民币|金额|amount(?: of)?|sum of)[ :]{0,2}$", re.IGNORECASE
)
# Not 千, nor 万 in 万一: "12345678 千万别告诉别人" is no amount.
_UNIT = (
    r"(?:多|余|来)?[ ]?(?:元|块|圆|[万亿](?![一别分])|美元|美金|欧元|英镑|港币|日元|刀"
    r"|(?:dollars?|bucks|euros?|pounds?|yuan|rmb|cny|usd|eur|gbp|hkd|jpy)\b)"
)
_UNIT_AFTER = re.compile(rf"(?:\.\d{{1,4}})?{_UNIT}", re.IGNORECASE)
# Amounts side by side, 500 1000 2000, or years.
_ROUND_OR_YEARS = re.compile(r"\d{1,2}00(?:[ -]\d{1,2}00)*|(?:19|20)\d\d(?:[ -](?:19|20)\d\d)*")
_CENTS_AFTER = re.compile(r"\.\d{1,2}(?![\d.])")

_CODE_WORDS = (
    r"(?:验证码|校验码|动态码|动态密码|动态口令|安全码|口令|密码|(?<![<A-Za-z])(?:OTP|PIN|CVV2?|CVC|pass ?code|password"
    r"|(?<!zip )(?<!post )(?<!postal )(?<!area )(?<!dress )(?<!country )(?<!error )code)\b)"
)
_HAS_CODE_WORD = re.compile(_CODE_WORDS, re.IGNORECASE)
# Between the word and its number nothing that speaks of money, and no other number.
_CODE_BEFORE = re.compile(
    rf"{_CODE_WORDS}(?:(?!send|pay|transfer|wire|deposit)[^\d<>\n¥$€£转汇付给存取买充收还花费]){{0,14}}$", re.IGNORECASE
)
_CODE_AFTER = re.compile(rf"[ ]?(?:是|为|is\b|are\b|\()[^\d<>\n]{{0,16}}?{_CODE_WORDS}", re.IGNORECASE)
_NOT_A_CODE = re.compile(rf"[,.:/]\d|-\d\d-|年|月|日|点|号楼|{_UNIT}", re.IGNORECASE)
_CODE_REACH = 40

_EMAIL = re.compile(r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,4}")
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d\d(?:[ -]?[A-Z0-9]){11,30}")
# Length by country: the SWIFT IBAN registry.
_IBAN_LENGTHS = {
    country: int(length)
    for country, length in re.findall(
        r"([A-Z]{2})(\d\d)",
        "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DK18 DO28 EE20 EG29 ES24 FI18"
        " FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20"
        " LU20 LV21 LY25 MC27 MD24 ME22 MK19 MR27 MT31 MU30 NL18 NO15 PK24 PL28 PS29 PT25 QA29 RO24 RS22 RU33 SA24 SC31"
        " SE24 SI19 SK24 SM27 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20",
    )
}

# Tried in this order at each number; whatever matches is consumed whole, so no pattern starts inside a number.
_NUMBER = re.compile(
    r"(?=[\d(+])(?:"
    # dates, kept: 2026-11-21, 2026年11月21日, 20261121, 21/11/2026
    r"(?P<date>(?:19|20)\d\d[-/.年](?:1[0-2]|0?[1-9])[-/.月](?:3[01]|[12]\d|0?[1-9])日?(?![-/.]?\d)"
    r"|(?:19|20)\d\d(?:1[0-2]|0[1-9])(?:3[01]|[12]\d|0[1-9])(?!-?\d)"
    r"|(?:[12]\d|3[01]|0?[1-9])[/-](?:[12]\d|3[01]|0?[1-9])[/-](?:19|20)\d\d(?![-/]?\d))"
    # 12,000.50 with its groups, kept
    r"|(?P<grouped>\d{1,3}(?:,\d{3}){1,3}(?:\.\d{1,4})?(?![\d,]\d|\d))"
    # a Chinese resident id, its parts perhaps apart (GB 11643-1999): by its birthday, for people mistype check digits
    r"|(?P<resident>[1-9]\d{5}[ -]?(?:18|19|20)\d\d(?:1[0-2]|0[1-9])(?:3[01]|[12]\d|0[1-9])[ -]?\d{3}[ -]?[\dXx]"
    r"(?![\dA-Za-z])|\d{17}[Xx](?![A-Za-z0-9]))"
    # US social security number
    r"|(?P<ssn>\d{3}(?P<s>[ -])\d\d(?P=s)\d{4}(?!\d))"
    # E.164 with its plus or 00, parts apart
    r"|(?P<world>(?:\+[ ]?|00(?=[1-9]\d?\d?[ -]))[1-9](?:[ ().-]{0,2}\d){7,14}(?!\d))"
    # Chinese mobile, with 86 before it or not
    r"|(?P<mobile>(?:\(?86\)?[ -]?)?(?:1[3-9]\d{9}|1[3-9]\d[ .-]\d{4}[ .-]\d{4}|1[3-9]\d\d[ .-]\d{3}[ .-]\d{4}"
    r"|1[3-9]\d[ .-]\d{3}[ .-]\d{5})(?!\d))"
    # Chinese landline and service lines, an extension perhaps
    r"|(?P<landline>\(?0(?:10|2\d|[3-9]\d\d)\)?[ -]?\d{3,4}[ -]?\d{4}(?:-\d{1,5})?(?!\d)"
    r"|[48]00[ -]?\d{3}[ -]?\d{4}(?!\d))"
    # North American, the area code perhaps missing
    r"|(?P<nanp>(?:1[ .-]?)?(?:\([2-9]\d\d\)[ ]?|[2-9]\d\d[ .-])\d{3}[ .-]\d{4}(?!\d)|[2-9]\d\d-\d{4}(?![\d-]))"
    # a card in groups: 4-4-4-4(-3), 4-6-5
    r"|(?P<card>\d{4}(?P<c>[ -])\d{4}(?P=c)\d{4}(?:(?P=c)\d{4})?(?:(?P=c)\d{1,3})?(?!\d)"
    r"|\d{4}[ -]\d{6}[ -]\d{5}(?!\d))"
    # digits spelled out one by one: 6 2 1 7...
    r"|(?P<spelled>\d(?:[ ._*/-]{1,2}\d){7,}(?!\d))"
    # any long run, and parts joined by hyphens
    rf"|(?P<run>\d{{{LONG_DIGITS},}})"
    r"|(?P<pair>\d{3}[ -]\d{3}(?![\d-]|[ ]\d))"
    r"|(?P<joined>\d{2,7}(?:-\d{2,7}){1,5}(?!\d))"
    r"|(?P<short>\d+)|[(+])"
)


class _Shadow(dict[int, int]):
    """str.translate table: any script's digits and wide punctuation to ASCII, one character for one; filled as met."""

    def __missing__(self, code: int) -> int:
        char = chr(code)
        digit = unicodedata.digit(char, None)
        category = unicodedata.category(char)
        wide = unicodedata.normalize("NFKC", char)
        if digit is not None:
            result = ord(str(digit))
        elif category == "Pd" or char == "−":
            result = ord("-")
        elif category == "Zs":
            result = ord(" ")
        elif char in "·•∙・":
            result = ord(".")
        elif code > 127 and len(wide) == 1 and ord(wide) < 127:
            result = ord(wide)
        else:
            result = ord("¥") if char == "￥" else code
        self[code] = result
        return result


_shadow = _Shadow()


def mask_text(text: str) -> str:
    """The text without what identifies people. mask_text(mask_text(x)) == mask_text(x); at most half longer."""
    if not _WORTH_A_LOOK.search(text):
        return text
    for _ in range(PASSES_MAX):
        masked = _mask_once(text)
        if masked == text:
            return text
        text = masked
    # Hiding one number can make the next one look different, but only so often in honest text.
    return re.sub(r"\d+", "<ACCOUNT>", text)


def mask_event(event: E) -> E:
    """The event with its message text, memo and attribute texts masked, each still within its bound."""
    changes: dict[str, object] = {}
    if isinstance(event, Message):
        changes["text"] = _mask_within(event.text, TEXT_CHARS_MAX)
    if isinstance(event, Transaction) and event.memo:
        changes["memo"] = _mask_within(event.memo, MEMO_CHARS_MAX)
    if event.attributes:
        changes["attributes"] = {
            name: _mask_within(value, ATTRIBUTE_CHARS_MAX) if isinstance(value, str) else value
            for name, value in event.attributes.items()
        }
    return cast(E, event.model_copy(update=changes) if changes else event)  # mypy loses E in the isinstance above


def seal(text: str, key: str) -> bytes:
    """Text encrypted for those who hold the key (Fernet: AES-128-CBC with HMAC-SHA256). Raises BadSettings."""
    return _fernet(key).encrypt(text.encode())


def open_sealed(token: bytes, key: str) -> str:
    """What `seal` was given. Raises BadSettings when the key is malformed or not the one it was sealed with."""
    try:
        return _fernet(key).decrypt(token).decode()
    except InvalidToken as error:
        hint = "was the key changed? Keep the old one to read what it sealed"
        raise BadSettings("the text was not sealed with this key", path="raw_text_key", hint=hint) from error


def _fernet(key: str) -> Fernet:
    try:
        return Fernet(key)
    except ValueError as error:
        hint = 'make one: python -c "from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())"'
        raise BadSettings("is not a Fernet key", path="raw_text_key", hint=hint) from error


def _mask_within(text: str, chars_max: int) -> str:
    """Masked and at most chars_max long: a mask can be longer than what it hides."""
    masked, keep = mask_text(text), chars_max
    while len(masked) > chars_max:
        masked, keep = mask_text(masked[:keep]), keep - len("<ACCOUNT>")
    return masked


def _mask_once(text: str) -> str:
    if _HAS_UNSEEN.search(text):
        text = _BESIDE_DIGITS.sub("", text)
    shadow = text if text.isascii() else text.translate(_shadow)
    if "@" in shadow:
        text, shadow = _replace(text, shadow, [(m.start(), m.end(), "<EMAIL>") for m in _EMAIL.finditer(shadow)])
    text, shadow = _replace(text, shadow, _ibans(shadow))
    has_code = _HAS_CODE_WORD.search(shadow) is not None
    found = []
    for match in _NUMBER.finditer(shadow):
        token = _token(match, shadow, has_code)
        if token:
            found.append((match.start(), match.end(), token))
    text, shadow = _replace(text, shadow, found)
    return _SPOKEN_RUN.sub(lambda m: "<PHONE>" if len(m[0]) == 11 and m[0][0] in "一幺壹" else "<ACCOUNT>", text)


def _replace(text: str, shadow: str, found: list[tuple[int, int, str]]) -> tuple[str, str]:
    """Text and shadow with the spans replaced. Spans are in order and apart."""
    if not found:
        return text, shadow
    texts: list[str] = []
    shadows: list[str] = []
    done = 0
    for start, end, token in found:
        texts += (text[done:start], token)
        shadows += (shadow[done:start], token)
        done = end
    return "".join((*texts, text[done:])), "".join((*shadows, shadow[done:]))


def _ibans(shadow: str) -> list[tuple[int, int, str]]:
    """IBANs that pass ISO 7064 MOD 97-10 at their country's length."""
    found = []
    for match in _IBAN.finditer(shadow):
        length = _IBAN_LENGTHS.get(match[0][:2], 0)
        places = [i for i, char in enumerate(match[0]) if char not in " -"][:length]
        value = "".join(match[0][i] for i in places)
        if length and len(value) == length:
            number = "".join(str(int(char, 36)) for char in value[4:] + value[:4])
            if int(number) % 97 == 1:
                found.append((match.start(), match.start() + places[-1] + 1, "<ACCOUNT>"))
    return found


def _token(match: re.Match[str], shadow: str, has_code: bool) -> str | None:
    """What stands for this number, or None when it stays."""
    kind = match.lastgroup
    if kind is None or kind in ("date", "grouped"):
        return None
    start, end = match.span()
    if kind in ("short", "pair"):
        return "<CODE>" if has_code and _is_code(match, shadow) else None
    digits = "".join(filter(str.isdigit, match[0]))
    if kind == "run" and _is_money(shadow, start, end):
        return None
    if kind == "joined":
        return None if _is_range(match[0], shadow, end) else "<ACCOUNT>"
    if kind in ("nanp", "card") and _ROUND_OR_YEARS.fullmatch(match[0]):
        return None
    if kind == "nanp" and len(digits) == 7 and (digits.endswith("00") or _UNIT_AFTER.match(shadow, end)):
        return None
    if kind == "run" and has_code and len(digits) == LONG_DIGITS and _is_code(match, shadow):
        return "<CODE>"
    if kind in ("world", "mobile", "landline", "nanp"):
        return "<PHONE>"
    if kind in ("ssn", "resident"):
        return "<ID>"
    return "<CARD>" if 13 <= len(digits) <= 19 and _passes_luhn(digits) else "<ACCOUNT>"


def _is_money(shadow: str, start: int, end: int) -> bool:
    if end - start > MONEY_DIGITS_MAX:
        return False
    if shadow.endswith("0000", start, end):  # a round sum; few accounts of eight or nine digits end so
        return True
    before = shadow[max(0, start - 12) : start]
    return bool(_UNIT_AFTER.match(shadow, end) or _CENTS_AFTER.match(shadow, end) or _CURRENCY_BEFORE.search(before))


def _is_range(joined: str, shadow: str, end: int) -> bool:
    """Whether 1000-20000 is a span of amounts rather than the parts of one number; few digits are never hidden."""
    parts = joined.split("-")
    if sum(map(len, parts)) < LONG_DIGITS:
        return True
    return (
        len(parts) == 2
        and not joined.startswith("0")
        and (all(part.endswith("00") for part in parts) or _UNIT_AFTER.match(shadow, end) is not None)
    )


def _is_code(match: re.Match[str], shadow: str) -> bool:
    """Whether a word for a one-time code or password speaks of this number of 3 to 8 digits."""
    start, end = match.span()
    if not 3 <= end - start <= LONG_DIGITS or _NOT_A_CODE.match(shadow, end):
        return False
    before = shadow[max(0, start - _CODE_REACH) : start]
    return bool(_CODE_BEFORE.search(before) or (end - start >= 4 and _CODE_AFTER.match(shadow, end)))


def _passes_luhn(digits: str) -> bool:
    """ISO/IEC 7812-1, annex B."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        doubled = int(digit) * (1 + place % 2)
        total += doubled - 9 if doubled > 9 else doubled
    return total % 10 == 0

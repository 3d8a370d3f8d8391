"""How people write: amounts in words, made-up identifiers, and the small noise of typing and speaking.

Every identifier is obviously fake: phones of unassigned ranges, cards with a valid check digit under
an unissued prefix, addresses under `.example`. Knows no plots and no accounts.
"""

import math
import re
from collections.abc import Callable
from random import Random

# Rough units of the base currency of a language (zh: CNY, en: USD) for one unit of the account's currency.
_CNY_FOR = {"CNY": 1.0, "USD": 7.0, "EUR": 8.0, "HKD": 0.9}
_ZH_DIGITS = "零一二三四五六七八九"
_HOMOPHONES = {
    "账": "帐", "在": "再", "的": "得", "做": "作", "吗": "嘛", "那": "哪", "已": "以", "登录": "登陆",
    "再": "在", "没": "每", "什么": "神马", "怎么": "咋么", "知道": "造", "这样": "酱紫", "需要": "须要", "他": "她",
}  # fmt: skip
# How people shorten or disguise words that filters look for; the harmless do it too.
_DISGUISES = {
    "微信": ("wx", "vx", "V", "威信", "微 信"), "支付宝": ("zfb", "支付寶", "某宝"), "银行卡": ("yhk", "银行ka", "卡"),
    "验证码": ("yzm", "验证ma", "验正码"), "身份证": ("sfz", "身份zheng"), "转账": ("转帐", "zz", "转zhang"),
    "贷款": ("dk", "d款", "袋款"), "公安局": ("gaj", "公 安 局"), "朋友": ("朋油", "py"), "群": ("裙", "q"),
    "电话": ("dh", "電話"), "客服": ("kf", "客 服"), "公司": ("gs", "公si"),
    "老师": ("ls", "老濕"), "加我": ("+我", "家我"),
}  # fmt: skip
# What speech recognition hears instead.
_MISHEARD = {
    "验证码": "验证吗", "账户": "帐户", "客服": "克服", "涉嫌": "射线", "理赔": "里赔", "转账": "专账",
    "手续费": "手续废", "下载": "下在", "屏幕": "平幕", "额度": "恶度", "征信": "真信", "是不是": "四不四",
    "的话": "得话", "保证金": "保正金",
}  # fmt: skip
_EN_MISHEARD = {
    " you're ": " your ", " their ": " there ", " to ": " too ", "passcode": "pass code", "refund": "re fund",
    " cheque": " check", " I'll ": " all ", " wire ": " why are ", "deposit": "the posit",
}  # fmt: skip
_EN_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_DIGITS = re.compile(r"\d{6,}(?![\d.,]*[元块美欧港])")
_CLAUSE = re.compile(r"(?<=[，。？！])")
_ZH_EMOJI = ("😂", "🙏", "👌", "😭", "[捂脸]", "[抱拳]", "哈哈", "~", "！！", "👍", "[呲牙]", "🌹")
_EN_EMOJI = ("😂", "🙏", "👍", "😅", "lol", "!!", "❤️", "haha", "🙂", "x")
_EN_SHORT = {
    "you": "u",
    "please": "pls",
    "tomorrow": "tmr",
    "thanks": "thx",
    "because": "cos",
    "don't": "dont",
    "I'm": "im",
    "can't": "cant",
    "right now": "rn",
    "are": "r",
    "and": "n",
    "know": "kno",
    "message": "msg",
    "account": "acct",
    "what's": "whats",
    "going to": "gonna",
    "want to": "wanna",
    "for": "4",
    "okay": "k",
}
_ZH_FILLERS = (
    "嗯，", "呃，", "那个，", "啊，", "哎，", "就是说，", "诶，", "这个，", "然后呢，", "是吧，", "对，", "喂，",
)  # fmt: skip
_EN_FILLERS = ("Uh, ", "Um, ", "Well, ", "So, ", "Right, ", "Okay so ", "Look, ", "Yeah, ", "I mean, ", "You know, ")


def draw(rng: Random, low: float, high: float, exact: bool) -> float:
    """A log-uniform amount between two bounds. exact: with cents, as a shop charges; else as people round."""
    value = math.exp(rng.uniform(math.log(low), math.log(high)))
    if exact:
        return max(round(value, 2), 0.01)
    digits = rng.choice((1, 2, 2, 2, 3))
    step = 10 ** max(0, math.floor(math.log10(value)) - digits + 1) if value >= 1 else 1
    rounded = float(max(1, round(value / step) * step))
    # Rounding must not carry a sum over a bound that the plot means, such as a reporting limit.
    return rounded if low <= rounded <= high else float(max(1, round(value)))


def rate(language: str, currency: str) -> float:
    """What one unit of `currency` is worth in the base currency of the language's plots."""
    return _CNY_FOR[currency] / (1.0 if language == "zh" else _CNY_FOR["USD"])


def spoken(rng: Random, language: str, currency: str, value: float) -> str:
    """An amount as people write it: 3万, 30000块, 30,000元; $500, 500 dollars, 5k."""
    if language == "en":
        return _spoken_en(rng, currency, value)
    unit = {"CNY": "元", "USD": "美元", "EUR": "欧元", "HKD": "港币"}[currency]
    plain = f"{value:.2f}" if value % 1 else f"{value:.0f}"
    ways = [plain + unit, plain + unit]
    if currency == "CNY":
        ways += [plain, plain + "块"] if value < 10000 else [plain]
        if value >= 10000 and value % 1000 == 0:
            ways += [f"{value / 10000:g}万", f"{value / 10000:g}万", f"{value / 10000:g}万块"]
        if value % 10000 == 0 and value < 100000:
            ways.append(_ZH_DIGITS[int(value // 10000)] + "万")
        if value % 1000 == 0 and value < 10000:
            ways.append(_ZH_DIGITS[int(value // 1000)].replace("二", "两") + "千")
    return rng.choice([*ways, f"{value:,.2f}{unit}"])


def _spoken_en(rng: Random, currency: str, value: float) -> str:
    plain = f"{value:,.2f}" if value % 1 else f"{value:,.0f}"
    sign = {"USD": "$", "EUR": "€", "HKD": "HK$", "CNY": "¥"}[currency]
    word = {"USD": "dollars", "EUR": "euros", "HKD": "HKD", "CNY": rng.choice(("yuan", "RMB", "kuai"))}[currency]
    ways = [sign + plain, sign + plain, f"{plain} {word}", f"{currency} {plain}"]
    if value % 1000 == 0:
        ways.append(f"{sign}{value / 1000:g}k")
    return rng.choice(ways)


def identifier(rng: Random, language: str, name: str) -> str | None:
    """A fresh made-up value for a computed slot; None for a slot that is not computed."""
    maker = COMPUTED.get(name)
    return maker(rng, language) if maker else None


def _phone(rng: Random, language: str) -> str:
    return f"1700000{rng.randrange(10000):04d}" if language == "zh" else f"+1 202-555-01{rng.randrange(100):02d}"


def _card(rng: Random, language: str) -> str:
    body = ("62220200000" if language == "zh" else "40000000000") + f"{rng.randrange(10000):04d}"
    return body + _luhn_digit(body)


def _link(rng: Random, language: str) -> str:
    host = f"{rng.choice(('m', 'app', 'h5', 'vip', 'my'))}-{rng.randrange(100, 999)}"
    return f"https://{host}.example/{rng.choice('abcdefgh')}{rng.randrange(100)}"


def _hour(rng: Random, language: str) -> str:
    return f"{rng.randrange(8, 22)}{'点' if language == 'zh' else ':' + rng.choice(('00', '15', '30'))}"


def _order(rng: Random, language: str) -> str:
    return f"{rng.choice(('SF', 'JD', 'YT', 'TB', ''))}{rng.randrange(10**9, 10**10)}"


def _luhn_digit(body: str) -> str:
    total = 0
    for place, digit in enumerate(reversed(body)):
        value = int(digit) * (2 if place % 2 == 0 else 1)
        total += value - 9 if value > 9 else value
    return str(-total % 10)


def _citizen(rng: Random, language: str) -> str:
    """A Chinese citizen number with a valid check character (GB 11643) and a birthday of 1900."""
    body = f"11010119000101{rng.randrange(1000):03d}"
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
    return body + "10X98765432"[sum(int(d) * w for d, w in zip(body, weights, strict=True)) % 11]


COMPUTED: dict[str, Callable[[Random, str], str]] = {
    "code": lambda rng, language: f"{rng.randrange(1_000_000):06d}",
    "phone": _phone,
    "card": _card,
    "tail": lambda rng, language: f"{rng.randrange(10000):04d}",
    "citizen": _citizen,
    "order": _order,
    "badge": lambda rng, language: f"{rng.randrange(10000, 999999):06d}",
    "link": _link,
    "mail": lambda rng, language: f"{rng.choice(('service', 'wei', 'desk'))}{rng.randrange(100)}@mail.example",
    "hour": _hour,
    "num": lambda rng, language: str(rng.randrange(2, 10)),
    "pct": lambda rng, language: str(rng.randrange(5, 46)),
}


def roughen(rng: Random, language: str, channel: str, text: str, sloppiness: float) -> str:
    """The same words as a person of this sloppiness (0 careful .. 1 careless) types or speaks them."""
    if channel == "call":
        return _speak(rng, language, text)
    if channel == "email" or "http" in text or text.startswith("【") or rng.random() > 0.35 + 0.6 * sloppiness:
        return text
    if language == "zh":
        return _type_zh(rng, text, sloppiness)
    return _type_en(rng, text, sloppiness)


def clauses(rng: Random, channel: str, text: str, sloppiness: float) -> list[str]:
    """One message, or one for each Chinese clause: people press enter instead of typing commas."""
    if channel not in ("chat", "sms") or "http" in text or text.startswith("【") or rng.random() > 0.3 * sloppiness:
        return [text]
    return [piece.rstrip("，") for piece in _CLAUSE.split(text) if piece.strip("，。 ")] or [text]


def _speak(rng: Random, language: str, text: str) -> str:
    """As a transcript has it: fillers, words said twice or misheard, numbers in words, no punctuation."""
    chinese = language == "zh"
    for heard in rng.sample(sorted((_MISHEARD if chinese else _EN_MISHEARD).items()), 4):
        if rng.random() < 0.1:
            text = text.replace(*heard, 1)
    if rng.random() < 0.2:
        text = _DIGITS.sub(lambda number: _read_out(rng, chinese, number[0]), text)
    if chinese and rng.random() < 0.05:
        text = text[:1] + text
    if rng.random() < 0.12:
        text = rng.choice(_ZH_FILLERS) + text if chinese else rng.choice(_EN_FILLERS) + text[:1].lower() + text[1:]
    if rng.random() < 0.15:  # a transcript without punctuation
        text = text.replace("，", " " if rng.random() < 0.5 else "").rstrip("。.")
        text = text if chinese else text.replace(",", "").lower()
    return text


def _read_out(rng: Random, chinese: bool, digits: str) -> str:
    if not chinese:
        return " ".join(_EN_DIGITS[int(digit)] for digit in digits)
    said = "".join(_ZH_DIGITS[int(digit)] for digit in digits)
    return said.replace("一", "幺") if rng.random() < 0.5 else said


def _type_zh(rng: Random, text: str, sloppiness: float) -> str:
    text = text.rstrip("。")
    if rng.random() < 0.4:
        text = text.replace("，", rng.choice((" ", " ", "", "…", ",")))
    if rng.random() < 0.25 * sloppiness:
        right, wrong = rng.choice(list(_HOMOPHONES.items()))
        text = text.replace(right, wrong, 1)
    if rng.random() < 0.35 * sloppiness:
        for word in [word for word in _DISGUISES if word in text][:2]:
            text = text.replace(word, rng.choice(_DISGUISES[word]), 1)
    if rng.random() < 0.06 * sloppiness and 3 < len(text) < 20:  # one sign typed twice or lost
        at = rng.randrange(len(text))
        text = text[:at] + rng.choice(("", text[at] * 2)) + text[at + 1 :]
    if rng.random() < 0.22:
        text += rng.choice(_ZH_EMOJI)
    return text or "。"


def _type_en(rng: Random, text: str, sloppiness: float) -> str:
    if rng.random() < 0.5:
        text = text[:1].lower() + text[1:]
    text = text.rstrip(".")
    for long, short in _EN_SHORT.items():
        if rng.random() < 0.5 * sloppiness:
            text = text.replace(f" {long} ", f" {short} ")
    if rng.random() < 0.3 * sloppiness and len(text) > 12:
        at = rng.randrange(1, len(text) - 2)
        if text[at : at + 2].isalpha():
            text = text[:at] + text[at + 1] + text[at] + text[at + 2 :]
    if rng.random() < 0.2:
        text += " " + rng.choice(_EN_EMOJI)
    return text

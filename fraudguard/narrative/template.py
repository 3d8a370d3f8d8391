"""The narrative where no language model writes one: sentences of ours, filled in from the same numbered evidence.

Knows the catalogues (zh.yaml, en.yaml beside this file) and the items; what people wrote goes in without brackets, so
that it cannot look like a link.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any, Final

import yaml

from fraudguard.domain import Scalar
from fraudguard.narrative.items import Item
from fraudguard.narrative.prompt import Language

_BRACKETS: Final = str.maketrans("[]【】［］", "()()()")
_PERCENT: Final = 100


@cache
def catalogue(language: Language) -> Mapping[str, Any]:
    """The words of a language."""
    text = files("fraudguard.narrative").joinpath(f"{language}.yaml").read_text(encoding="utf-8")
    loaded: Mapping[str, Any] = yaml.safe_load(text)
    return loaded


def narrative(items: Sequence[Item], language: Language) -> str:
    """The text, with [n] where it speaks of item n."""
    words = catalogue(language)
    decision, *others = items
    of = {kind: [item for item in others if item.kind == kind] for kind in ("rule", "line", "feature")}
    paragraphs = [
        words["space"].join([_decided(decision, words), *(_ruled(item, words) for item in of["rule"])]),
        words["space"].join(_said(item, words) for item in of["line"]),
        _counted(of["feature"], words) if of["feature"] else "",
        words["advice"][decision.facts["typology"] or "none"],
    ]
    return "\n\n".join(paragraph for paragraph in paragraphs if paragraph)


def _decided(item: Item, words: Mapping[str, Any]) -> str:
    facts = item.facts
    which = "payment" if facts["event_type"] == "transaction" else "message"
    told = {
        **facts,
        "n": item.number,
        "outcome": words["outcomes"][facts["outcome"]],
        "typology": words["typologies"].get(facts["typology"]),
        "risk": _percent(facts["risk"]),
    }
    ending = "degraded" if facts["risk"] is None else "scored"
    sentence: str = words[which].format(**told) + words[ending].format(**told)
    return sentence


def _ruled(item: Item, words: Mapping[str, Any]) -> str:
    facts = item.facts
    sentence: str = words["rule"].format(
        n=item.number,
        rule=_quiet(facts["rule"]),
        version=facts["version"],
        outcome=words["outcomes"][facts["outcome"]],
        tests=_quiet(facts["tests"]),
    )
    return sentence


def _said(item: Item, words: Mapping[str, Any]) -> str:
    facts = item.facts
    kind = "line" if facts["event_type"] == "message" else "event"
    speaker, colon, said = str(facts["text"]).partition(": ")
    spoken = f"{words['speakers'].get(speaker, speaker)}{colon}{said}"
    sentence: str = words[kind].format(n=item.number, time=facts["time"], text=_quiet(spoken))
    if facts["risk"] is not None:
        before = _percent(facts["risk_before"])
        how = "risk_now" if before is None else "risk_moved"
        sentence += words[how].format(before=before, risk=_percent(facts["risk"]))
    if facts["effect"] is not None:
        sentence += words["effect"].format(effect=_points(facts["effect"]))
    return f"{sentence}{words['stop']}"


def _counted(features: Sequence[Item], words: Mapping[str, Any]) -> str:
    told = [
        words["feature"].format(
            n=item.number,
            name=words["features"].get(item.ref, item.ref),
            values=words["comma"].join(_values(item, words)),
            effect=_points(item.facts["effect"]),
        )
        for item in features
    ]
    sentence: str = words["features_lead"] + words["semicolon"].join(told) + words["stop"]
    return sentence


def _values(item: Item, words: Mapping[str, Any]) -> list[str]:
    """The values of a family, each with its window where it has several."""
    told = {
        name.removeprefix(item.ref).strip("_"): words["truth"][value] if isinstance(value, bool) else _number(value)
        for name, value in item.facts.items()
        if name != "effect" and value is not None
    }
    return [f"{window} {value}".strip() for window, value in told.items()]


def _number(value: Scalar) -> str:
    return f"{value:,.2f}".removesuffix(".00") if isinstance(value, int | float) else _quiet(value)


def _quiet(value: Scalar) -> str:
    return str(value).translate(_BRACKETS)


def _percent(risk: Scalar) -> str | None:
    return None if risk is None else f"{float(risk) * _PERCENT:.0f} %"


def _points(effect: Scalar) -> str:
    return f"{float(effect or 0.0) * _PERCENT:.0f}"

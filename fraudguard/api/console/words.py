"""Every word that the console shows, from one catalogue a language.

Knows catalogues and plurals; knows no page. A missing word is a bug and raises KeyError.
"""

from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Final, Literal, get_args

import yaml

Language = Literal["en", "zh"]
LANGUAGES: Final[tuple[Language, ...]] = get_args(Language)


@cache
def catalogue(language: Language) -> Mapping[str, str]:
    """Dotted key to text with {named} gaps."""
    text = resources.files(__package__).joinpath("words", f"{language}.yaml").read_text("utf-8")
    return {f"{page}.{key}": word for page, words in yaml.safe_load(text).items() for key, word in words.items()}


class Words:
    """The catalogue of one language, as templates call it."""

    def __init__(self, language: Language) -> None:
        self.language = language
        self._words = catalogue(language)

    def __call__(self, key: str, **values: object) -> str:
        """The words of a key with its gaps filled."""
        return self._words[key].format(**values)

    def __contains__(self, key: str) -> bool:
        return key in self._words

    def count(self, key: str, n: int) -> str:
        """A number with its noun: `key`, or `key_1` for one."""
        return self._words[f"{key}_1" if n == 1 else key].format(n=f"{n:,}")

    def either(self, key: str, otherwise: str) -> str:
        """The words of a key that a stored value named, or that value where the catalogue has none."""
        return self._words.get(key, otherwise)


def choose(cookie: str | None, accepted: str) -> Language:
    """What the person chose, else the first of our languages that the browser asks for."""
    for language in LANGUAGES:
        if cookie == language:
            return language
    asked = [part.split(";")[0].strip().lower() for part in accepted.split(",")]
    return next((language for tag in asked for language in LANGUAGES if tag.split("-")[0] == language), "en")

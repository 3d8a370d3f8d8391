"""How an account's risk and typology moved over its last scores.

Knows the scores that were entered, in that order; an event that was decided without the model enters none.
"""

from collections.abc import Sequence
from itertools import pairwise
from math import fsum
from typing import Any, Final

from fraudguard.domain import Scalar

SCORES: Final = 5


class Trend:
    """The last SCORES risks and typologies of one account, the newest last."""

    __slots__ = ("_risks", "_typologies")

    def __init__(self) -> None:
        self._risks: list[float] = []
        self._typologies: list[str] = []

    def features(self) -> dict[str, Scalar]:
        """The six features over what was entered until now; all missing where nothing was."""
        risks, typologies = self._risks, self._typologies
        if not risks:
            return dict(_NOTHING)
        return {
            "risk_previous": risks[-1],
            "risk_change": risks[-1] - risks[0],
            "risk_max_5": max(risks),
            "risk_mean_5": fsum(risks) / len(risks),
            "typology_previous": typologies[-1],
            "typology_changes_5": sum(a != b for a, b in pairwise(typologies)),
        }

    def enter(self, risk: float, typology: str) -> None:
        """Enter the score of the account's newest event."""
        self._risks, self._typologies = [*self._risks, risk][-SCORES:], [*self._typologies, typology][-SCORES:]

    def dump(self) -> list[Any]:
        """Everything as plain values, by column."""
        return [self._risks, self._typologies]

    def restore(self, stored: Sequence[Any]) -> None:
        """The inverse of `dump`."""
        self._risks, self._typologies = stored


_NOTHING: Final[dict[str, Scalar]] = dict.fromkeys(
    ("risk_previous", "risk_change", "risk_max_5", "risk_mean_5", "typology_previous", "typology_changes_5")
)

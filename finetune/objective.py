"""What training makes small: the error of the risk, and a share of the typology's.

Knows logits and labels. Both are weighted means over the readings of one step, however many rows these come in:
`Terms` holds the step's denominators, so that the rows' losses add up to the step's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F


class Labels(Protocol):
    """truth in [0, 1], weight, typology (-1: none) of readings [n]."""

    truth: Tensor
    weight: Tensor
    typology: Tensor


@dataclass(frozen=True, slots=True)
class Objective:
    """fraud, harmless: class weights of the risk. typologies: those of the kinds [typology].

    smoothing: of both labels, the part that goes to all classes alike. share: of the typology's error.
    """

    fraud: float
    harmless: float
    typologies: Tensor
    smoothing: float
    share: float

    @classmethod
    def of(cls, data: Sequence[Labels], kinds: int, balance: float, smoothing: float, share: float) -> "Objective":
        """Class weights (n / (classes * n of class)) ** balance, where n sums the readings' weights.

        balance 0: all weigh 1; 1: every class weighs the same in all.
        """
        truth = torch.cat([one.truth for one in data]).double()
        weight = torch.cat([one.weight for one in data]).double()
        typology = torch.cat([one.typology for one in data])
        risk = torch.stack([(weight * truth).sum(), (weight * (1 - truth)).sum()])
        named = typology >= 0
        sums = torch.zeros(kinds, dtype=torch.float64).index_add_(0, typology[named], weight[named])
        fraud, harmless = _balanced(risk, balance).tolist()
        return cls(fraud, harmless, _balanced(sums, balance).float(), smoothing, share)

    def weights(self, of: Labels) -> tuple[Tensor, Tensor]:
        """How much each reading [n] counts, for the risk and for the typology."""
        risk = of.weight * (of.truth * self.fraud + (1 - of.truth) * self.harmless)
        typologies = self.typologies.to(of.weight.device)
        return risk, of.weight * typologies[of.typology.clamp(min=0)] * (of.typology >= 0)

    def loss(self, logits: Tensor, kinds: Tensor, labels: Labels, risk_total: float, kind_total: float) -> Tensor:
        """The part of a step's loss that these readings make: logits [n], kinds [n, typology].

        risk_total, kind_total: what `weights` sums up to over the whole step.
        """
        logits, kinds = logits.float(), kinds.float()
        risk_weight, kind_weight = self.weights(labels)
        truth = labels.truth * (1 - self.smoothing) + self.smoothing / 2
        error = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
        loss = (error * risk_weight).sum() / (risk_total or 1.0)  # a step may hold context alone, which weighs nothing
        if kind_total:
            error = F.cross_entropy(
                kinds, labels.typology.clamp(min=0), reduction="none", label_smoothing=self.smoothing
            )
            loss = loss + self.share * (error * kind_weight).sum() / kind_total
        return loss


def _balanced(sums: Tensor, balance: float) -> Tensor:
    present = sums > 0
    even = sums.sum() / present.sum().clamp(min=1)
    return torch.where(present, (even / sums.clamp(min=1e-12)) ** balance, 1.0)

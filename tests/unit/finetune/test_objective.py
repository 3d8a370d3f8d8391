"""The loss against its formula, written out in floats."""

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from finetune.objective import Objective


@dataclass
class Readings:
    """Labels of some readings."""

    truth: Tensor
    weight: Tensor
    typology: Tensor


LABELS = Readings(
    truth=torch.tensor([1.0, 0.0, 0.0, 0.35]),
    weight=torch.tensor([1.0, 0.3, 1.0, 0.5]),
    typology=torch.tensor([2, -1, -1, 0]),
)
LOGITS = torch.tensor([0.7, -1.2, 0.4, 0.0])
KINDS = torch.tensor([[0.1, 0.5, -0.3], [1.0, 0.0, 0.0], [0.0, 0.0, 2.0], [-0.5, 0.2, 0.9]])


def total(objective: Objective, labels: Readings, logits: Tensor, kinds: Tensor, of: Readings) -> float:
    """The part of the loss of `of` that `labels` make."""
    risk, kind = (float(part.sum()) for part in objective.weights(of))
    return float(objective.loss(logits, kinds, labels, risk, kind))


@pytest.mark.parametrize(("balance", "smoothing", "share"), [(0.0, 0.0, 0.1), (1.0, 0.0, 0.1), (0.5, 0.1, 0.25)])
def test_the_formula(balance: float, smoothing: float, share: float) -> None:
    """Weighted means of the smoothed cross-entropies of the risk and of the kinds that are known."""
    objective = Objective.of([LABELS], 3, balance, smoothing, share)
    truth, weight, kind = LABELS.truth.tolist(), LABELS.weight.tolist(), LABELS.typology.tolist()
    sums = [
        sum(w * t for w, t in zip(weight, truth, strict=True)),
        sum(w * (1 - t) for w, t in zip(weight, truth, strict=True)),
    ]
    fraud, harmless = ((sum(sums) / 2 / one) ** balance for one in sums)
    of_kind = {2: (1.5 / 2 / 1.0) ** balance, 0: (1.5 / 2 / 0.5) ** balance}
    risk_error = risk_weight = kind_error = kind_weight = 0.0
    for t, w, k, logit, row in zip(truth, weight, kind, LOGITS.tolist(), KINDS.tolist(), strict=True):
        p, smooth = 1 / (1 + math.exp(-logit)), t * (1 - smoothing) + smoothing / 2
        u = w * (t * fraud + (1 - t) * harmless)
        risk_error += u * -(smooth * math.log(p) + (1 - smooth) * math.log(1 - p))
        risk_weight += u
        if k >= 0:
            logs = [one - math.log(sum(map(math.exp, row))) for one in row]
            v = w * of_kind[k]
            kind_error += v * -((1 - smoothing) * logs[k] + smoothing / 3 * sum(logs))
            kind_weight += v
    wanted = risk_error / risk_weight + share * kind_error / kind_weight
    assert total(objective, LABELS, LOGITS, KINDS, LABELS) == pytest.approx(wanted, rel=1e-5)


def test_classes_can_weigh_alike() -> None:
    """With balance 1, fraud and harmless have the same weight in all, and so have the kinds that occur."""
    truth = torch.tensor([1.0] + [0.0] * 9)
    labels = Readings(truth, torch.ones(10), torch.tensor([1, 0, 0, 0] + [-1] * 6))
    risk, kind = Objective.of([labels], 3, 1.0, 0.0, 0.1).weights(labels)
    assert float(risk[:1].sum()) == pytest.approx(float(risk[1:].sum()))
    assert float(kind[:1].sum()) == pytest.approx(float(kind[1:].sum()))
    plain, _ = Objective.of([labels], 3, 0.0, 0.0, 0.1).weights(labels)
    assert plain.tolist() == [1.0] * 10


def test_parts_add_up_to_the_whole() -> None:
    """However a step's readings are shared out to rows, one of them without any typology."""
    objective = Objective.of([LABELS], 3, 0.5, 0.1, 0.1)
    parts = []
    for row in (slice(0, 1), slice(1, 3), slice(3, 4)):
        labels = Readings(LABELS.truth[row], LABELS.weight[row], LABELS.typology[row])
        parts.append(total(objective, labels, LOGITS[row], KINDS[row], LABELS))
    assert sum(parts) == pytest.approx(total(objective, LABELS, LOGITS, KINDS, LABELS), rel=1e-6)


def test_without_a_typology_the_risk_alone_is_learned() -> None:
    """No division by nothing."""
    labels = Readings(torch.tensor([1.0, 0.0]), torch.ones(2), torch.tensor([-1, -1]))
    objective = Objective.of([labels], 3, 1.0, 0.0, 0.1)
    assert total(objective, labels, torch.zeros(2), KINDS[:2], labels) == pytest.approx(math.log(2))


def test_what_weighs_nothing_teaches_nothing() -> None:
    """Not even where a step holds nothing else: no loss, no gradient, no division by nothing."""
    labels = Readings(LABELS.truth, torch.zeros(4), LABELS.typology)
    logits = LOGITS.clone().requires_grad_()
    loss = Objective.of([LABELS], 3, 0.5, 0.1, 0.1).loss(logits, KINDS, labels, 0.0, 0.0)
    loss.backward()
    assert loss.item() == 0.0
    assert logits.grad is not None
    assert not logits.grad.any()

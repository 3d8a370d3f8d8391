"""The joint-fusion head: last hidden state and numeric features in, one risk logit and the typologies' logits out.

Knows tensors and what head.json says of them. Numbers enter by piecewise-linear encoding (Gorishniy et al.,
arXiv 2203.05556): a value fills its quantile bins up to its place. A missing value fills none and has an indicator of
its own.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fraudguard.domain import Scalar, Score, ScoreRequest, Typology
from fraudguard.engine.head_spec import HeadSpec, as_numbers, load_spec
from fraudguard.engine.lexicon import FEATURE, Lexicon
from fraudguard.engine.release import TenantParts
from fraudguard.engine.tokenizer import LineTokenizer
from fraudguard.errors import BadModel


class FusionHead(nn.Module):
    """[n, hidden_size] and [n, feature] with NaN for missing -> risk logit [n], typology logits [n, typology]."""

    _column: Tensor
    _low: Tensor
    _width: Tensor

    def __init__(self, spec: HeadSpec, dropout: float = 0.0) -> None:
        super().__init__()
        self.spec = spec
        self.names = tuple(feature.name for feature in spec.features)
        self.lexicon: Lexicon | None = None
        bins = [
            (column, low, high - low)
            for column, feature in enumerate(spec.features)
            for low, high in zip(feature.edges, feature.edges[1:], strict=False)
        ]
        # Not of the weights, but where these are: a GPU trains them.
        for name, part, dtype in (("_column", 0, torch.long), ("_low", 1, torch.float32), ("_width", 2, torch.float32)):
            self.register_buffer(name, torch.tensor([of_bin[part] for of_bin in bins], dtype=dtype), persistent=False)
        inputs = spec.hidden_size + len(bins) + len(spec.features)
        self.mlp = nn.Sequential(
            nn.Linear(inputs, spec.width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(spec.width, 1 + len(spec.typologies)),
        )

    def encode(self, numbers: Tensor) -> Tensor:
        """Bins filled in [0, 1], then the missing indicators: [n, bins + feature]."""
        missing = numbers.isnan()
        filled = ((numbers[:, self._column] - self._low) / self._width).clamp(0.0, 1.0)
        return torch.cat([filled.nan_to_num(0.0), missing.to(torch.float32)], dim=1)

    def forward(self, hidden: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102 - see the class
        logits = self.mlp(torch.cat([hidden, self.encode(numbers)], dim=1))
        return logits[:, 0], logits[:, 1:]

    @torch.inference_mode()
    def scores(
        self, hidden: Tensor, rows: Sequence[Mapping[str, Scalar]], ids: Sequence[Sequence[int]], model: str
    ) -> list[Score]:
        """A score, signed `model`, for each hidden state [n, hidden_size], its row of features and its timeline's ids.

        model: ends in +precision, whose calibration is used.
        Raises BadModel when the features are not those it was made for.
        """
        if self.lexicon is not None:
            rows = [{**row, FEATURE: self.lexicon.score(its)} for row, its in zip(rows, ids, strict=True)]
        logits, kinds = self(hidden, torch.from_numpy(as_numbers(self.names, rows)))
        risks = self.spec.calibration_of(model.rpartition("+")[2]).risk(logits.numpy())
        typologies = [Typology(self.spec.typologies[kind]) for kind in kinds.argmax(dim=1).tolist()]
        return [Score(float(risk), kind, model) for risk, kind in zip(risks, typologies, strict=True)]

    def save(self, folder: Path) -> None:
        """Write head.json, head.safetensors and the lexicon, if it has one."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "head.json").write_text(json.dumps(self.spec.model_dump(), indent=1) + "\n")
        save_file(self.state_dict(), folder / "head.safetensors")
        if self.lexicon is not None:
            self.lexicon.save(folder)


def load_head(folder: Path) -> FusionHead:
    """The head in the folder, ready to score. Raises BadModel."""
    weights = folder / "head.safetensors"
    head = FusionHead(load_spec(folder))
    if not weights.is_file():
        raise BadModel("there is no head.safetensors", path=str(folder))
    try:
        head.load_state_dict(load_file(weights))
    except Exception as error:  # safetensors and torch raise kinds of their own
        raise BadModel(f"does not fit head.json: {error}", path=str(weights)) from error
    if FEATURE in head.names:
        head.lexicon = Lexicon.load(folder)
    return head.eval()


class Heads:
    """A release's own head and its tenants', each for its own requests."""

    def __init__(self, name: str, own: FusionHead, tenants: Mapping[str, FusionHead], tokenizer: LineTokenizer) -> None:
        """name: name@version+precision; a tenant's scores are signed name@version/tenant+precision."""
        self._tokenizer = tokenizer
        release, plus, precision = name.partition("+")
        self._of: dict[str | None, tuple[FusionHead, str]] = {None: (own, name)}
        self._of |= {tenant: (head, f"{release}/{tenant}{plus}{precision}") for tenant, head in tenants.items()}

    def tenant(self, request: ScoreRequest) -> str | None:
        """The tenant whose adapter and head the request is for; None for the release's own."""
        return request.tenant if request.tenant in self._of else None

    def rows(self, requests: Sequence[ScoreRequest]) -> dict[str | None, list[int]]:
        """Which of the requests are for each tenant, in order; those with none are left out."""
        rows: dict[str | None, list[int]] = {}
        for row, request in enumerate(requests):
            rows.setdefault(self.tenant(request), []).append(row)
        return rows

    def scores(self, hidden: Tensor, requests: Sequence[ScoreRequest]) -> list[Score]:
        """One score for each hidden state [n, hidden_size] and its request. Raises BadModel as FusionHead.scores."""
        scores: dict[int, Score] = {}
        for tenant, rows in self.rows(requests).items():
            head, name = self._of[tenant]
            features = [requests[row].features for row in rows]
            ids = [self._tokenizer.encode_timeline(requests[row].timeline, head.spec.tokens_max) for row in rows]
            scores |= zip(rows, head.scores(hidden[rows], features, ids, name), strict=True)
        return [scores[row] for row in range(len(requests))]


def load_tenants(parts: Mapping[str, TenantParts], own: FusionHead) -> dict[str, FusionHead]:
    """The tenants' heads by name, which must read what the release's own reads. Raises BadModel."""
    heads = {tenant: load_head(part.head) for tenant, part in parts.items()}
    for tenant, head in heads.items():
        for number in ("hidden_size", "tokens_max"):
            its, wanted = getattr(head.spec, number), getattr(own.spec, number)
            if its != wanted:
                raise BadModel(f"{number} is {its}, and {wanted} in the release's own", path=str(parts[tenant].head))
    return heads

"""The lexicon: what the words of a timeline alone say, as one number for the head.

A logistic regression over TF-IDF of the timeline's token n-grams, hashed into a table. Knows token ids and numpy, no
torch and no text. It sees exact words, the model sees meaning; the head weighs the two (docs/model-card.md).
An n-gram has its inverse document frequency and its coefficient; it counts 1 + log(times), and a timeline's vector has
unit length, as scikit-learn's TfidfVectorizer(sublinear_tf=True) makes it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file

from fraudguard.errors import BadModel

FILE = "lexicon.safetensors"
# The head's name for it; no feature of the registry is called so.
FEATURE = "lexicon"
ORDERS = (1, 2, 3)
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio: Knuth's multiplicative hashing

Floats = npt.NDArray[np.float32]


def places(ids: Sequence[int], buckets: int) -> tuple[npt.NDArray[np.int64], Floats]:
    """The buckets [n], distinct and ascending, of the ids' n-grams, and how much each counts [n]."""
    tokens = np.array(ids, dtype=np.uint64) + np.uint64(1)
    hashed = tokens
    found = [tokens * _MULTIPLIER]
    for order in ORDERS[1:]:
        hashed = hashed[:-1] * _MULTIPLIER + tokens[order - 1 :]
        found.append(hashed * _MULTIPLIER)
    # The high bits: the low ones of a product depend on low bits alone.
    slots, times = np.unique(np.concatenate(found) >> np.uint64(32), return_counts=True)
    slots, back = np.unique(slots % np.uint64(buckets), return_inverse=True)
    counts = np.bincount(back, weights=times)
    return slots.astype(np.int64), (1 + np.log(counts)).astype(np.float32)


class Lexicon:
    """inverse: of document frequency. coefficients: of the regression. Both [buckets]."""

    def __init__(self, inverse: Floats, coefficients: Floats, bias: float) -> None:
        self.inverse, self.coefficients, self.bias = inverse, coefficients, bias

    def score(self, ids: Sequence[int]) -> float:
        """The log-odds of fraud by the words of a timeline with these token ids, at least one."""
        slots, counts = places(ids, len(self.inverse))
        weighed = counts * self.inverse[slots]
        length = float(np.sqrt(weighed @ weighed))
        return float(weighed @ self.coefficients[slots]) / max(length, 1e-9) + self.bias

    def save(self, folder: Path) -> None:
        """Write lexicon.safetensors; half precision, which this then has too."""
        arrays = {"inverse": self.inverse.astype(np.float16), "coefficients": self.coefficients.astype(np.float16)}
        save_file({**arrays, "bias": np.array([self.bias], np.float32)}, folder / FILE)
        self.inverse, self.coefficients = (arrays[name].astype(np.float32) for name in ("inverse", "coefficients"))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The lexicon in a head's folder. Raises BadModel."""
        file = folder / FILE
        try:
            arrays = load_file(file)
            inverse, coefficients = (arrays[name].astype(np.float32) for name in ("inverse", "coefficients"))
            bias = float(arrays["bias"][0])
        except Exception as error:  # safetensors raises kinds of its own
            raise BadModel(f"is no lexicon: {error}", path=str(file)) from error
        if inverse.shape != coefficients.shape or inverse.ndim != 1 or not len(inverse):
            raise BadModel("its two tables differ in size", path=str(file))
        return cls(inverse, coefficients, bias)

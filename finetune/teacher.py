"""The teachers of the starter's base: the MIT-licensed sentence encoders bge-small-zh-v1.5 and bge-small-en-v1.5.

Knows their Maven coordinates, their files inside the jar and how a vector is made: the first token's last hidden state
at unit length, as their authors do (BAAI, FlagEmbedding). Knows no timelines and trains nothing. Only training needs
them; nothing of them is in a release.
"""

import hashlib
import os
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnxruntime
from onnxruntime.quantization import QuantType, quantize_dynamic
from tokenizers import Tokenizer

from fraudguard.errors import BadInput

Language = Literal["zh", "en"]
Vectors = npt.NDArray[np.float32]

VERSION = "0.36.2"
SHA256 = {
    "zh": "e7ef927e728822377d6b3889ad7649a7a0a796eb8e199aed1b1b0081ff9845c8",
    "en": "9dff55ebd00d1448a88a0b836a642bd93a9248da8fb16907b4b95c60ccf781a4",
}
TOKENS_MAX = 192
BATCH_TOKENS = 4_096


def cache_dir() -> Path:
    """FRAUDGUARD_TEACHERS, else ~/.cache/fraudguard/teachers."""
    return Path(os.environ.get("FRAUDGUARD_TEACHERS") or Path.home() / ".cache/fraudguard/teachers").absolute()


def fetch(language: Language, cache: Path) -> tuple[Path, Path]:
    """The encoder in int8 and its tokenizer, downloaded (60 to 80 MB) unless they are there. Raises BadInput."""
    name = f"bge-small-{language}-v1.5"
    model, tokenizer = cache / f"{name}-int8.onnx", cache / f"{name}-tokenizer.json"
    if model.is_file() and tokenizer.is_file():
        return model, tokenizer
    from jgo.maven import MavenContext  # its own default repository

    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="download-", dir=cache) as aside:
        artifact = f"langchain4j-embeddings-bge-small-{language}-v15"
        project = MavenContext(repo_cache=Path(aside)).project("dev.langchain4j", artifact)
        try:
            jar = project.at_version(VERSION).artifact().resolve()
            with jar.open("rb") as content:
                found = hashlib.file_digest(content, "sha256").hexdigest()
        except Exception as error:  # whatever its network layers raise
            raise BadInput(
                f"{artifact} could not be downloaded: {error}", hint="set distil to null to do without"
            ) from error
        if found != SHA256[language]:
            raise BadInput(f"{artifact} {VERSION}: what was downloaded is not the file that was locked")
        with zipfile.ZipFile(jar) as archive:
            archive.extractall(aside, [f"{name}.onnx", f"{name}-tokenizer.json"])
        quantize_dynamic(Path(aside) / f"{name}.onnx", Path(aside) / model.name, weight_type=QuantType.QInt8)
        os.replace(Path(aside) / tokenizer.name, tokenizer)
        os.replace(Path(aside) / model.name, model)
    return model, tokenizer


class Teacher:
    """One encoder."""

    def __init__(self, language: Language, threads: int, cache: Path | None = None) -> None:
        """threads: of onnxruntime. Raises BadInput."""
        model, tokenizer = fetch(language, cache or cache_dir())
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        self._tokenizer = Tokenizer.from_file(str(tokenizer))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(TOKENS_MAX)

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Vectors of unit length [text, dimension], in order."""
        encoded = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        vectors: list[Vectors] = [np.empty(0, np.float32)] * len(texts)
        batch: list[int] = []
        for index in sorted(range(len(texts)), key=lambda index: len(encoded[index])):
            if batch and (len(batch) + 1) * len(encoded[index]) > BATCH_TOKENS:
                self._embed(batch, encoded, vectors)
                batch = []
            batch.append(index)
        if batch:
            self._embed(batch, encoded, vectors)
        return np.stack(vectors)

    def _embed(self, batch: Sequence[int], encoded: Sequence[Sequence[int]], vectors: list[Vectors]) -> None:
        ids = np.zeros((len(batch), max(len(encoded[index]) for index in batch)), np.int64)
        mask = np.zeros_like(ids)
        for row, index in enumerate(batch):
            ids[row, : len(encoded[index])] = encoded[index]
            mask[row, : len(encoded[index])] = 1
        feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        names = {entry.name for entry in self._session.get_inputs()}
        states = self._session.run(None, {name: feed for name, feed in feeds.items() if name in names})[0]
        first = states[:, 0].astype(np.float32)
        for row, index in enumerate(batch):
            vectors[index] = first[row] / np.linalg.norm(first[row])

"""Text without labels for the starter's base: chunks of talk as timelines write it, with their teachers' vectors.

    python -m finetune.corpus finetune/base.yaml --dataset DATASET --data DATA --out CORPUS

Knows the train split of a DATASET, the harmless folder of DATA and the teachers; knows no model of ours. A dialogue
whose name puts it into another split (data.part_of) is not read.
"""

import argparse
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from finetune import dataset
from finetune.data import part_of
from finetune.recipe import BaseRecipe, CorpusRun, read_settings
from finetune.teacher import Language, Teacher
from fraudguard.domain import Message
from fraudguard.events.masking import mask_text
from fraudguard.features.timeline import clean, render

log = logging.getLogger(__name__)

_HAN = re.compile(r"[\u4e00-\u9fff]")
_SENDERS = {"agent": "agent", "assistant": "agent", "system": "system"}
_CUSTOMERS = ("customer", "user", "client", "B", "User 2")
# Counselling talk and manuals would be half of all Chinese: a class must not be known by their style.
_THINNED = {"cpsycoun_zh": 0.3, "emollm_zh": 0.3, "d365_finance_docs_zh": 0.3, "tau2_bench_en": 0.3}
LINE_CHARS = 240


@dataclass(frozen=True, slots=True)
class Chunk:
    """lines: consecutive lines of one timeline. said: what people said in them, for the teacher."""

    lines: tuple[str, ...]
    said: str

    @property
    def language(self) -> Language:
        """Of most of what was said."""
        return "zh" if 3 * len(_HAN.findall(self.said)) > len(self.said) / 2 else "en"


Document = list[tuple[str, str | None]]  # a line, and what was said in it


def told(folder: Path) -> Iterator[Document]:
    """The timelines of a DATASET's train split: plots and dialogues, and ordinary life around them."""
    for timeline in dataset.read(folder, "train"):
        yield [
            (render(one.event, one.features, LINE_CHARS), one.event.text if isinstance(one.event, Message) else None)
            for one in timeline.events
        ]


def harmless(data: Path) -> Iterator[Document]:
    """The talk and texts of DATA/harmless, dialogue by dialogue; single sentences in handfuls."""
    for file in sorted((data / "harmless").glob("*.parquet")):
        rng, share = Random(file.stem), _THINNED.get(file.stem, 1.0)
        channel = "service " if "multidogo" in file.stem else ""
        frame = pd.read_parquet(file, columns=["kind", "dialogue_id", "speaker", "text"])
        talk = frame[frame.kind == "dialogue"]
        for key, turns in talk.groupby("dialogue_id", sort=True):
            if part_of(str(key)) == "train" and rng.random() < share:
                yield [_line(channel, speaker, text) for speaker, text in zip(turns.speaker, turns.text, strict=True)]
        single = frame[frame.kind != "dialogue"]
        for start in range(0, len(single), 4):
            if rng.random() < share:
                few = single.iloc[start : start + 4]
                yield [_line(channel, speaker, text) for speaker, text in zip(few.speaker, few.text, strict=True)]


def _line(channel: str, speaker: str, text: str) -> tuple[str, str]:
    sender = _SENDERS.get(speaker) or ("customer" if speaker in _CUSTOMERS else "counterparty")
    said = clean(mask_text(text.replace("\x00", "")), LINE_CHARS)
    return f"{channel}{sender}: {said}", said


def chunks(documents: Iterator[Document], run: CorpusRun, seed: int) -> list[Chunk]:
    """Pieces of 1 to run.lines consecutive lines with something said in them, in random order."""
    rng = Random(seed)
    found: list[Chunk] = []
    for document in documents:
        at = 0
        while at < len(document):
            piece = document[at : at + rng.randint(1, run.lines)]
            at += len(piece)
            said = "\n".join(text for _, text in piece if text)
            if len(said) >= run.chars_min:
                found.append(Chunk(tuple(line for line, _ in piece), said))
    rng.shuffle(found)
    return found


def make(sources: Sequence[list[Chunk]], run: CorpusRun, threads: int, out: Path) -> None:
    """CORPUS/{zh,en}.parquet: lines and vectors, at most run.chunks of a language, its sources in equal parts."""
    out.mkdir(parents=True, exist_ok=True)
    for language in ("zh", "en"):
        spoken = [[chunk for chunk in source if chunk.language == language] for source in sources]
        kept: list[Chunk] = []
        for number, source in enumerate(sorted(spoken, key=len)):
            kept += source[: (run.chunks - len(kept)) // (len(spoken) - number)]
        Random(len(kept)).shuffle(kept)
        log.info("%s: %d chunks, %d characters", language, len(kept), sum(len(chunk.said) for chunk in kept))
        if kept:
            columns = {"lines": pa.array([chunk.lines for chunk in kept], pa.list_(pa.string()))}
            if run.teachers:
                vectors = Teacher(language, threads).embed([chunk.said for chunk in kept])
                flat = pa.array(vectors.astype(np.float16).ravel())
                columns["vector"] = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
            pq.write_table(pa.table(columns), out / f"{language}.parquet")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--dataset", type=Path, required=True, help="folder that finetune.prepare made")
    parser.add_argument("--data", type=Path, required=True, help="folder of the public sets")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    recipe = read_settings(options.recipe, BaseRecipe)
    run = recipe.corpus
    sources = [chunks(told(options.dataset), run, recipe.seed), chunks(harmless(options.data), run, recipe.seed)]
    make(sources, run, recipe.threads, options.out)


if __name__ == "__main__":
    main()

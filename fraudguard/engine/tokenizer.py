"""Lines to token ids, one line at a time.

Knows the tokenizer file and the line end; knows no torch and no transformers, so that features/ may count tokens in a
process without them. A line's ids never depend on its neighbours: a timeline tokenizes as the concatenation of its
lines, and what was computed for its first lines stays true when more follow.
"""

import hashlib
from functools import lru_cache
from itertools import chain
from pathlib import Path

from tokenizers import Tokenizer

from fraudguard.domain import Timeline
from fraudguard.errors import BadModel

LINES_CACHED_MAX = 65_536  # an account's lines come again with each of its events


class LineTokenizer:
    """Tokenizes lines as the model reads them, each closed by the line end. Thread-safe."""

    def __init__(self, path: Path) -> None:
        """path: a tokenizer.json, or the folder that holds one. Raises BadModel."""
        file = path / "tokenizer.json" if path.is_dir() else path
        if not file.is_file():
            raise BadModel("there is no tokenizer.json", path=str(path), hint="a checkpoint must bring its tokenizer")
        content = file.read_bytes()
        try:
            self._tokenizer = Tokenizer.from_buffer(content)
        except Exception as error:  # tokenizers raises bare Exception
            raise BadModel(f"cannot be read: {error}", path=str(file)) from error
        # What people write must not become a control token of the model.
        self._tokenizer.encode_special_tokens = True
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        end = self._tokenizer.encode("\n", add_special_tokens=False).ids
        if len(end) != 1:
            raise BadModel(
                f"the line end is {len(end)} tokens", path=str(file), hint="the tokenizer needs one token for \\n"
            )
        self._end = end[0]
        self.id = hashlib.sha256(content).hexdigest()[:16]
        self._cached = lru_cache(LINES_CACHED_MAX)(self._tokenize)

    @property
    def vocabulary(self) -> int:
        """How many ids there are, added tokens included; every id is smaller."""
        return max(self._tokenizer.get_vocab(with_added_tokens=True).values()) + 1

    def texts(self) -> list[str]:
        """What each id stands for; a part of a character as U+FFFD."""
        return self._tokenizer.decode_batch([[token] for token in range(self.vocabulary)], skip_special_tokens=False)

    def count(self, line: str) -> int:
        """How many tokens the line takes, its end included; at least 1."""
        return len(self.encode(line))

    def encode(self, line: str) -> tuple[int, ...]:
        """The line's ids, the last one its end."""
        return self._cached(line)

    def encode_timeline(self, timeline: Timeline, tokens_max: int) -> tuple[int, ...]:
        """The ids of its lines; of more than tokens_max the last."""
        ids = tuple(chain.from_iterable([self._cached(line.text) for line in timeline.lines]))
        return ids[-tokens_max:]

    def encode_prefix(self, text: str) -> tuple[int, ...]:
        """The ids of what a release reads before every timeline, as it stands, without a line end of its own.

        A release's text is no customer's: the control tokens that it writes, such as <|im_start|>, are control tokens.
        """
        if not text:
            return ()
        trusting = Tokenizer.from_str(self._tokenizer.to_str())  # a copy: threads may be using the other
        trusting.encode_special_tokens = False
        return tuple(trusting.encode(text, add_special_tokens=False).ids)

    def _tokenize(self, line: str) -> tuple[int, ...]:
        return (*self._tokenizer.encode(line, add_special_tokens=False).ids, self._end)


@lru_cache(4)
def open_tokenizer(path: Path) -> LineTokenizer:
    """The tokenizer in the folder, one for all who ask: a line that the features room has counted is not read again."""
    return LineTokenizer(path)

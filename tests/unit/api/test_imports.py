"""The API image holds no torch, no engine and no stream."""

import subprocess
import sys

HEAVY = (
    "torch",
    "transformers",
    "peft",
    "tokenizers",
    "faust",
    "circuitbreaker",
    "fraudguard.engine",
    "fraudguard.stream",
)


def test_the_api_imports_neither_torch_nor_faust() -> None:
    """A process that has imported the application has none of the heavy packages."""
    code = f"import sys, fraudguard.api.app; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"

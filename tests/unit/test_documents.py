"""The documents a newcomer reads first."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("finetune/*.md")])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(document: Path) -> None:
    """A relative link names a file of the project."""
    links = re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8"))
    missing = [link for link in links if not (document.parent / link).exists()]
    assert missing == []


def test_the_readme_opens_with_the_two_commands() -> None:
    """`make demo` and `make test`, before anything else, and both exist."""
    lines = [line for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines() if line.strip()]
    assert lines[1].strip().startswith("make demo")
    assert lines[2].strip().startswith("make test")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(r"^demo:", makefile, re.MULTILINE)
    assert re.search(r"^test:", makefile, re.MULTILINE)


def test_every_setting_in_the_documents_exists() -> None:
    """A FRAUDGUARD_ variable that a document names is a setting, or one of the few that are not settings."""
    from fraudguard.config import Settings

    known = {f"FRAUDGUARD_{name.upper()}" for name in Settings.model_fields}
    known |= {
        "FRAUDGUARD_KAFKA_CACHE",
        "FRAUDGUARD_SLOW_EVENTS",
        "FRAUDGUARD_RECORD",
        "FRAUDGUARD_VLLM_PYTHON",
        "FRAUDGUARD_",
    }
    for document in DOCUMENTS:
        named = set(re.findall(r"FRAUDGUARD_[A-Z_]*", document.read_text(encoding="utf-8")))
        assert named <= known, f"{document.name}: {sorted(named - known)}"

"""Settings of a fresh database and the session's Kafka; an API that is ready, with a decider at work."""

from collections.abc import AsyncIterator, Iterator

import pytest
from api_support import Api, deciding, serving
from cryptography.fernet import Fernet
from pydantic import SecretStr
from support import ROOT, settings_for

from fraudguard.assembly import Parts, load_parts
from fraudguard.config import Settings
from fraudguard.embedded.kafka import EmbeddedKafka
from fraudguard.events.topics import ensure_topics


@pytest.fixture(scope="session")
def parts() -> Iterator[Parts]:
    """Rules, policy and tokenizer as they ship; the model is off."""
    loaded = load_parts(Settings(model="off", rules_dir=ROOT / "rules", policy_path=ROOT / "rules/policy.yaml"))
    yield loaded
    loaded.close()


@pytest.fixture
def settings(kafka: EmbeddedKafka, database_url: str) -> Settings:
    """Topics, a fresh database and a key for unmasked text."""
    key, seal = (SecretStr(Fernet.generate_key().decode()) for _ in range(2))
    others = {"model": "off", "raw_text_key": key, "secrets_key": seal, "screen_deadline_ms": 10_000}
    settings = settings_for(kafka.bootstrap, database_url, **others)
    ensure_topics(settings)
    return settings


@pytest.fixture
async def api(settings: Settings, parts: Parts) -> AsyncIterator[Api]:
    """The API with a decider at work."""
    async with deciding(settings, parts), serving(settings) as api:
        yield api

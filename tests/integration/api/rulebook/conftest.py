"""The API as in the other tests, but with a small pack of rules: publishing tries every rule of a pack."""

from collections.abc import AsyncIterator, Iterator

import pytest
from api_support import Api
from rulebook_support import Person, office, person, write_pack

from fraudguard.assembly import Parts, load_parts
from fraudguard.config import Settings


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parts]:
    """The small pack; the model is off."""
    directory = tmp_path_factory.mktemp("rules")
    write_pack(directory)
    loaded = load_parts(Settings(model="off", rules_dir=directory, policy_path=directory / "policy.yaml"))
    yield loaded
    loaded.close()


@pytest.fixture
async def trusting(settings: Settings, parts: Parts) -> AsyncIterator[Api]:
    """An API that asks for no approval."""
    async with office(settings.model_copy(update={"rules_approvals": 0}), parts) as api:
        yield api


@pytest.fixture
async def li(api: Api) -> Person:
    """A risk manager."""
    return await person(api, "Li")


@pytest.fixture
async def wang(api: Api) -> Person:
    """Another one."""
    return await person(api, "Wang")

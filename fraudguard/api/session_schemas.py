"""What signing in takes and gives. Knows shapes, not what is right."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from fraudguard.accounts import PASSWORD_CHARACTERS_MAX
from fraudguard.domain import Role

_Password = Annotated[SecretStr, Field(min_length=1, max_length=PASSWORD_CHARACTERS_MAX)]


class SignIn(BaseModel):
    """Who signs in, and the proof."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=64)]
    password: _Password
    code: Annotated[SecretStr, Field(max_length=16)] | None = Field(
        default=None, description="The one-time code of an account that has them"
    )


class Who(BaseModel):
    """Who calls."""

    model_config = ConfigDict(frozen=True, from_attributes=True)

    name: str = Field(description="As the audit trail and cases name the caller")
    role: Role
    csrf_token: str | None = Field(description="What a change by cookie sends as X-CSRF-Token; null for a key")
    tenant: str = Field(description="Whose rows the caller sees and writes; empty: everybody's")


class NewPassword(BaseModel):
    """A person's own password, changed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    old: _Password
    new: _Password

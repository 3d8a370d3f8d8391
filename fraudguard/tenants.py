"""Whose an event is, and keys that keep two tenants' equal ids apart.

Knows names and ids; what is stored by them is decisions/, who may see it is api/'s.
"""

import re
from typing import Final
from uuid import UUID, uuid5

from fraudguard.domain import Event
from fraudguard.errors import BadInput

HOUSE: Final = ""  # the tenant of everything that belongs to no other
ATTRIBUTE: Final = "tenant"  # of an event
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # as a release's tenants are called

# Decision ids are a function of the event id, so that a repeated event can only ever meet its own decision.
NAMESPACE: Final = UUID("6f1d7c1e-52a1-5d0b-9c59-0f5b6a3c7a11")
_SEPARATOR: Final = "\x1f"  # neither ids nor names can hold it


def tenant_of(event: Event) -> str:
    """The tenant that an event names in its attribute `tenant`; HOUSE for none, and for what is no tenant's name."""
    named = event.attributes.get(ATTRIBUTE)
    return named if isinstance(named, str) and NAME.fullmatch(named) else HOUSE


def checked_name(name: str) -> str:
    """The name, if a tenant may have it; HOUSE is one. Raises BadInput."""
    if name != HOUSE and not NAME.fullmatch(name):
        hint = "up to 64 letters, digits, dots, dashes and underlines, a letter or digit first"
        raise BadInput("is no name for a tenant", path="tenant", hint=hint)
    return name


def scoped(tenant: str, id: str) -> str:
    """An id that no other tenant's equals; the house's own ids are their own keys."""
    return f"{tenant}{_SEPARATOR}{id}" if tenant else id


def unscoped(key: str) -> tuple[str, str]:
    """The tenant and the id that `scoped` made a key of."""
    tenant, _, id = key.rpartition(_SEPARATOR)
    return tenant, id


def event_key(event: Event) -> str:
    """What an event's id is known by among all tenants'."""
    return scoped(tenant_of(event), event.event_id)


def target_key(event: Event) -> str:
    """The same of the event that a label is about; of any other event, its own."""
    return scoped(tenant_of(event), getattr(event, "target_event_id", event.event_id))


def account_key(event: Event) -> str:
    """What an event's account is known by among all tenants'."""
    return scoped(tenant_of(event), event.account_id)


def decision_id_of(key: str) -> str:
    """The id of the decision of the event with this key."""
    return str(uuid5(NAMESPACE, key))

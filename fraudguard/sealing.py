"""Secrets that must be read again, of one-time codes and of webhooks, sealed for the store. Knows the key alone."""

from cryptography.fernet import Fernet, InvalidToken
from pydantic import SecretStr

from fraudguard.errors import BadSettings

_MAKE = 'make one: python -c "from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())"'


class Seal:
    """Both methods raise BadSettings without a usable key."""

    def __init__(self, key: SecretStr | None) -> None:
        """key: Fernet's; None: nothing can be sealed here."""
        self._key = key

    def close(self, secret: str) -> bytes:
        """Sealed."""
        return self._box().encrypt(secret.encode())

    def open(self, sealed: bytes) -> str:
        """As it was. BadSettings also for what another key has sealed."""
        try:
            return self._box().decrypt(sealed).decode()
        except InvalidToken as error:
            hint = "FRAUDGUARD_SECRETS_KEY is not the one that sealed it: bring that back, or make the secret anew"
            raise BadSettings("a stored secret cannot be opened", path="secrets_key", hint=hint) from error

    def _box(self) -> Fernet:
        if self._key is None:
            hint = f"set FRAUDGUARD_SECRETS_KEY, the same for every process; {_MAKE}"
            raise BadSettings("there is no key to seal secrets with", path="secrets_key", hint=hint)
        try:
            return Fernet(self._key.get_secret_value())
        except ValueError as error:
            raise BadSettings("is not a Fernet key", path="secrets_key", hint=_MAKE) from error

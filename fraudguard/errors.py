"""Every error that fraudguard raises on purpose, sorted by what a caller does about it.

    FraudguardError
    |-- BadInput              somebody sent or wrote something wrong; never retried
    |   |-- BadEvent          goes to the dead-letter topic, with the field's path and a fix
    |   |-- BadRule           a rule file is refused with file:line:column, a caret and a hint
    |   |-- BadPolicy         the policy file is refused
    |   |-- BadModel          a checkpoint, adapter or head does not fit together
    |   |-- BadSettings       a setting is missing or contradicts another
    |   |-- BadSignIn         a name, password or one-time code is not right, or the account is locked
    |   |-- HouseOnly         a tenant's people ask for what is the house's
    |   `-- Conflict          what is asked contradicts what has been done: a closed case is not disposed of again
    |       `-- Overtaken     somebody changed it since it was read; read it again, then decide
    |-- NotFound              an id that names nothing
    |-- Transient             may work if tried again; retried with a bound, then the worker stops unacked
    |   |-- StateConflict     another worker wrote this account's state first: reload and try again
    |   |-- StoreUnavailable  PostgreSQL does not answer
    |   |-- BrokerUnavailable Kafka does not answer
    |   |-- ProviderUnavailable the OpenID provider does not answer
    |   `-- EngineUnavailable the model did not answer in time or failed: degrade by policy
    `-- ServiceFailed         an embedded service could not start or died for good

Anything else that escapes is a bug and crashes loudly.
"""


class FraudguardError(Exception):
    """Root of the tree."""


class BadInput(FraudguardError):
    """Something a person or system outside gave us is wrong; says where and how to mend it."""

    def __init__(self, reason: str, *, path: str = "", hint: str = "") -> None:
        """reason: what is wrong; path: where (`amount`, `rules/a.yaml:3:8`); hint: the fix."""
        self.reason, self.path, self.hint = reason, path, hint
        where = f"{path}: " if path else ""
        fix = f" ({hint})" if hint else ""
        super().__init__(f"{where}{reason}{fix}")


class BadEvent(BadInput):
    """An event that cannot be read or may not be used; `code` is the machine's reason (see docs/events.md)."""

    def __init__(self, reason: str, *, code: str, path: str = "", hint: str = "") -> None:
        """code: a stable word such as `unknown_field`; no text here may quote what people wrote."""
        super().__init__(reason, path=path, hint=hint)
        self.code = code


class BadRule(BadInput):
    """A rule file, rule or rule expression that cannot be used."""


class BadPolicy(BadInput):
    """A policy file that cannot be used."""


class BadModel(BadInput):
    """A checkpoint, adapter or head that is missing, damaged or does not fit the others."""


class BadSettings(BadInput):
    """A setting that is missing, malformed or contradicts another."""


class BadSignIn(BadInput):
    """A name, password or one-time code that is not right, or an account that is locked; which, is not said."""

    def __init__(self, reason: str, *, code: str, path: str = "", hint: str = "") -> None:
        """code: a stable word, like `bad_sign_in` or `code_needed`; the console has words of its own for each."""
        super().__init__(reason, path=path, hint=hint)
        self.code = code


class HouseOnly(BadInput):
    """A tenant's people ask for what is the house's: rules, lists, models, other tenants' names."""


class Conflict(BadInput):
    """What is asked contradicts what has been done already; asking again cannot help."""


class Overtaken(Conflict):
    """Somebody else changed it since the version that was read; says who."""


class NotFound(FraudguardError):
    """An id that names nothing here."""


class Transient(FraudguardError):
    """May succeed if tried again."""


class StateConflict(Transient):
    """The account's state row, or an event id, was written by someone else since it was read."""


class StoreUnavailable(Transient):
    """PostgreSQL does not answer, or refused for a passing reason."""


class BrokerUnavailable(Transient):
    """Kafka does not answer, or did not acknowledge in time."""


class ProviderUnavailable(Transient):
    """The OpenID provider does not answer, or not as its protocol wants."""


class EngineUnavailable(Transient):
    """The scoring engine failed, timed out, or its circuit is open."""


class ServiceFailed(FraudguardError):
    """An embedded Kafka or PostgreSQL could not start, or died more often than its bound."""

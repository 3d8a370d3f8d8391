"""The reasons an analyst gives by a digit when disposing of a case: what each says the case was."""

from dataclasses import dataclass
from typing import Final, Literal

from fraudguard.decisions.casebook import Disposition
from fraudguard.errors import BadInput

Verdict = Literal["block", "approve"]


@dataclass(frozen=True, slots=True)
class Reason:
    """code: stored as the case's reason, and `reason.<code>` of the catalogue."""

    code: str
    verdict: Verdict
    disposition: Disposition


REASONS: Final = (
    Reason("customer_denies", "block", Disposition.CONFIRMED_FRAUD),
    Reason("customer_deceived", "block", Disposition.CONFIRMED_FRAUD),
    Reason("account_taken_over", "block", Disposition.CONFIRMED_FRAUD),
    Reason("known_fraudster", "block", Disposition.CONFIRMED_FRAUD),
    Reason("mule_behaviour", "block", Disposition.CONFIRMED_FRAUD),
    Reason("suspicious_unproven", "block", Disposition.SUSPICIOUS),
    Reason("customer_confirmed", "approve", Disposition.FALSE_POSITIVE),
    Reason("known_payee", "approve", Disposition.FALSE_POSITIVE),
    Reason("usual_behaviour", "approve", Disposition.FALSE_POSITIVE),
    Reason("harmless_talk", "approve", Disposition.FALSE_POSITIVE),
    Reason("rule_too_wide", "approve", Disposition.FALSE_POSITIVE),
)


def reasons_of(verdict: Verdict) -> tuple[Reason, ...]:
    """In the order of their digits, from 1."""
    return tuple(reason for reason in REASONS if reason.verdict == verdict)


def checked(code: str) -> Reason:
    """The reason of this code. Raises BadInput."""
    found = next((reason for reason in REASONS if reason.code == code), None)
    if found is None:
        raise BadInput("is not one of the reasons", path="reason")
    return found

"""How often one caller may ask: by principal, and by address for who signs in. Counted in this process alone."""

import math
import time

from limits import RateLimitItem, RateLimitItemPerMinute, RateLimitItemPerSecond
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from fraudguard.api.problems import ProblemError
from fraudguard.config import Settings
from fraudguard.decisions.keys import Principal
from fraudguard.domain import Role


class Rates:
    """Bounds from the settings; a bound of 0 is none."""

    def __init__(self, settings: Settings) -> None:
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._service = _bound(RateLimitItemPerSecond, settings.rate_service_s)
        self._caller = _bound(RateLimitItemPerMinute, settings.rate_caller_min)
        self._sign_in = _bound(RateLimitItemPerMinute, settings.rate_sign_in_min)

    async def caller(self, principal: Principal) -> None:
        """429 when this one asked too often."""
        await self._count(self._service if principal.role is Role.SERVICE else self._caller, principal.name)

    async def sign_in(self, address: str) -> None:
        """429 when too many sign-ins were tried from this address."""
        await self._count(self._sign_in, address)

    async def _count(self, bound: RateLimitItem | None, whose: str) -> None:
        if bound is None or await self._limiter.hit(bound, whose):
            return
        window = await self._limiter.get_window_stats(bound, whose)
        wait_s = max(1, math.ceil(window.reset_time - time.time()))  # the library goes by the machine's clock
        detail = f"more than {bound.amount:,} requests a {bound.GRANULARITY.name}"
        raise ProblemError(
            429, "too_often", detail, hint="wait as Retry-After says", headers={"Retry-After": str(wait_s)}
        )


def _bound(kind: type[RateLimitItem], amount: int) -> RateLimitItem | None:
    return kind(amount) if amount else None

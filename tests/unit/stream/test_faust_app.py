"""The shortcut around Faust's task-per-message wait."""

import asyncio

from fraudguard.stream.faust_app import _Resumed


async def test_a_resumed_coroutine_goes_on_where_it_was_stepped_to() -> None:
    """A coroutine stepped once by hand finishes with its own result when awaited later."""
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def waits() -> str:
        return f"got {await ready}"

    coroutine = waits()
    first = coroutine.send(None)
    asyncio.get_running_loop().call_soon(ready.set_result, "it")
    assert await _Resumed(coroutine, first) == "got it"


async def test_an_error_reaches_the_resumed_coroutine() -> None:
    """What the awaited future raises is raised inside the coroutine, which may handle it."""
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def handles() -> str:
        try:
            return await ready
        except ValueError as error:
            return f"handled {error}"

    coroutine = handles()
    first = coroutine.send(None)
    asyncio.get_running_loop().call_soon(ready.set_exception, ValueError("it"))
    assert await _Resumed(coroutine, first) == "handled it"

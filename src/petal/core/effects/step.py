"""`petal.step`: an act of a node on the world, that happens once however often the node runs."""

from __future__ import annotations

import inspect
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import partial
from typing import Any, TypeVar, get_args, overload

from petal.core.effects.recorder import OnUnknown, Request, arun, run
from petal.core.effects.records import plain
from petal.core.effects.task import Running, Task, running
from petal.errors import OutsideStepError

T = TypeVar("T")


@overload
def step(
    name: str, fn: Callable[..., Coroutine[Any, Any, T]], /, *args: Any, on_unknown: OnUnknown = "run", **kwargs: Any
) -> Awaitable[T]: ...
@overload
def step(name: str, fn: Callable[..., T], /, *args: Any, on_unknown: OnUnknown = "run", **kwargs: Any) -> T: ...
def step(name: str, fn: Callable[..., Any], /, *args: Any, on_unknown: OnUnknown = "run", **kwargs: Any) -> Any:
    """Call a function once for a step of a graph, however often the step runs.

    Call it within a node. When it is called, and when it ended, is recorded on the checkpoint from which the node runs;
    when the node runs again from there, after a crash, an error or a question, a call that ended is answered from the
    record. One that raised is made again. Where no record is kept, the function simply runs.

    Args:
        name: A name for the act. Several calls of one name in a node are told apart by their order.
        fn: What acts: a function, or a coroutine function, whose result is awaited.
        args: Its arguments. They and the result are kept with the checkpoint.
        on_unknown: What to do if it was called and nothing tells whether it ended: `"run"` it again, under the same
            `petal.idempotency_key()`; `"ask"` a human, who answers `"run"` or `{"result": …}`; or `"fail"`.
        kwargs: Its keyword arguments.

    Returns:
        What the function returned; an awaitable of it for a coroutine function.

    Raises:
        EffectMismatchError: If it was called with other arguments when the node ran before.
        UnknownEffectError: If it is unknown whether it ended, with `on_unknown="fail"`.
        EffectResultError: If its result would not come back as it is.
        EffectNotRecordedError: If the run is a dry one, and its result is not on record.
    """
    _check(on_unknown)
    call = partial(fn, *args, **kwargs)
    if _is_async(fn):
        return _acted(name, fn, args, kwargs, on_unknown, call)
    task = Task.current()
    if task is None:
        return _alone(call)
    return run(task, _request(task, name, fn, args, kwargs, on_unknown), partial(_at_once, name, call))


def astep(
    name: str, fn: Callable[..., Any], /, *args: Any, on_unknown: OnUnknown = "run", **kwargs: Any
) -> Awaitable[Any]:
    """As `step`, always awaited; for sync functions in async nodes, whose event loop then goes on while it is recorded.

    The function itself is called in the event loop.
    """
    _check(on_unknown)
    return _acted(name, fn, args, kwargs, on_unknown, partial(_awaited, partial(fn, *args, **kwargs)))


def idempotency_key() -> str:
    """A text that is the same in every attempt at what runs here, and another one for everything else.

    Within a `petal.step` or a tool it is that call's; in a node elsewhere it is the node's. A fork from before a step
    gives what runs then another key.

    Raises:
        OutsideStepError: If no step runs here.
    """
    here, task = running.get(), Task.current()
    if here is not None and (task is None or here.task_id == task.id):
        return here.key
    if task is None:
        raise OutsideStepError
    return task.key_of(None)


def _acted(
    name: str,
    fn: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    on_unknown: OnUnknown,
    call: Callable[[], Awaitable[Any]],
) -> Awaitable[Any]:
    task = Task.current()
    if task is None:
        return _aalone(call)
    return arun(task, _request(task, name, fn, args, kwargs, on_unknown), call)


def _request(
    task: Task,
    name: str,
    fn: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    on_unknown: OnUnknown,
) -> Request:
    told = [plain(args), plain(kwargs)]
    return Request(task.next_identity("step", name), _named(fn, *told), told, on_unknown)


def _named(fn: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments by the names of the function's parameters."""
    try:
        return dict(inspect.signature(fn).bind(*args, **kwargs).arguments)
    except (TypeError, ValueError):
        return {"args": args, **kwargs}


def _check(on_unknown: str) -> None:
    if on_unknown not in get_args(OnUnknown):
        raise ValueError(f"on_unknown is 'run', 'ask' or 'fail', not {on_unknown!r}.")


def _is_async(fn: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(getattr(fn, "__call__", None))  # noqa: B004


def _at_once(name: str, call: Callable[[], Any]) -> Any:
    result = call()
    if inspect.isawaitable(result):
        if inspect.iscoroutine(result):
            result.close()
        raise TypeError(f"What petal.step({name!r}, …) calls returned an awaitable; use `await petal.astep(…)`.")
    return result


async def _awaited(call: Callable[[], Any]) -> Any:
    result = call()
    return await result if inspect.isawaitable(result) else result


def _alone(call: Callable[[], Any]) -> Any:
    token = running.set(Running(None, f"petal-{uuid.uuid4().hex}"))
    try:
        return call()
    finally:
        running.reset(token)


async def _aalone(call: Callable[[], Awaitable[Any]]) -> Any:
    token = running.set(Running(None, f"petal-{uuid.uuid4().hex}"))
    try:
        return await call()
    finally:
        running.reset(token)

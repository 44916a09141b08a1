"""Operations as methods: `list_messages = Method(operations.list_messages)`.

So the parameters of an operation are written once, and a sync client returns what an async one awaits.
"""

from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, Self, TypeVar, overload

from agent_gateway_client.calls import Call

P = ParamSpec("P")
T = TypeVar("T")
Operation = Callable[Concatenate[str, P], Call[T]]


class Sends(Protocol):
    """A sync client."""

    @property
    def user(self) -> str:
        """In whose name it calls."""
        ...

    def send(self, call: Call[T]) -> T:
        """The result of a call."""
        ...


class SendsAsync(Protocol):
    """An async client."""

    @property
    def user(self) -> str:
        """In whose name it calls."""
        ...

    async def send(self, call: Call[T]) -> T:
        """The result of a call."""
        ...


class Method(Generic[P, T]):
    """An operation as the method of a sync client."""

    def __init__(self, operation: Callable[Concatenate[str, P], Call[T]]) -> None:
        self._operation = operation
        self.__doc__ = operation.__doc__

    @overload
    def __get__(self, client: None, owner: type) -> Self: ...
    @overload
    def __get__(self, client: Sends, owner: type) -> Callable[P, T]: ...
    def __get__(self, client: Sends | None, owner: type) -> Self | Callable[P, T]:
        if client is None:
            return self

        def send(*args: P.args, **kwargs: P.kwargs) -> T:
            return client.send(self._operation(client.user, *args, **kwargs))

        send.__doc__ = self.__doc__
        return send


class AsyncMethod(Generic[P, T]):
    """An operation as the method of an async client."""

    def __init__(self, operation: Callable[Concatenate[str, P], Call[T]]) -> None:
        self._operation = operation
        self.__doc__ = operation.__doc__

    @overload
    def __get__(self, client: None, owner: type) -> Self: ...
    @overload
    def __get__(self, client: SendsAsync, owner: type) -> Callable[P, Coroutine[Any, Any, T]]: ...
    def __get__(self, client: SendsAsync | None, owner: type) -> Self | Callable[P, Coroutine[Any, Any, T]]:
        if client is None:
            return self

        async def send(*args: P.args, **kwargs: P.kwargs) -> T:
            return await client.send(self._operation(client.user, *args, **kwargs))

        send.__doc__ = self.__doc__
        return send

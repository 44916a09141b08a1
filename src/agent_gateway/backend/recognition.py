"""Which generation of the run protocol a backend speaks: found out once, and again when it refuses.

A backend says it in its OpenAPI document. One that has none is believed to speak what the settings say, or
else what the app file is written in, until a refusal shows that it does not. Nothing of this is stored:
the backend may be another one tomorrow.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from agent_gateway.backend.lenient import UNREADABLE
from agent_gateway.domain.ids import Generation
from agent_gateway.errors import BackendError

logger = logging.getLogger(__name__)

_COMPOSITIONS: Final = ("RunComposition", "RunComposition-Input")
"""Its names in an OpenAPI document: the longer one where what is sent and what is answered differ."""
_OTHER: Final[dict[Generation, Generation]] = {1: 2, 2: 1}


class Recognition:
    """What is known of one backend, shared by all turns of a process.

    `read` gets the backend's OpenAPI document; `fallback` is what to believe when that says nothing.
    """

    def __init__(self, read: Callable[[], Awaitable[bytes]], fallback: Generation | None = None) -> None:
        self._read = read
        self._fallback = fallback
        self._known: Generation | None = None
        self._asked = False
        self._asking: asyncio.Task[None] | None = None

    async def generation(self, written: int) -> Generation:
        """What to send; `written` is the schema version that the app file is written in."""
        if not self._asked:
            await self._ask()
        return self._known or self._fallback or (2 if written == 2 else 1)

    async def after_refusal(self, used: Generation, refusal: bytes) -> Generation | None:
        """What to send instead after a refusal with this body; None when the form was not what was wrong."""
        if self._known in (None, used):
            await self._ask()
        if self._known in (None, used) and _is_about_form(used, refusal):
            # It has no document, or only another process behind the same address was asked.
            self._know(_OTHER[used])
        return None if self._known == used else self._known

    async def aclose(self) -> None:
        """Ask no longer."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait({self._asking})

    async def _ask(self) -> None:
        """One question at a time, for whoever wants to know."""
        if self._asking is None:
            self._asking = asyncio.create_task(self._look())
        # One who leaves must not take the answer from the others.
        await asyncio.shield(self._asking)

    async def _look(self) -> None:
        try:
            told = _told(await self._read())
        except BackendError as error:
            logger.info("the backend does not say which generation it speaks: %s", error)
        else:
            if told is not None:
                self._know(told)
        finally:
            self._asked, self._asking = True, None

    def _know(self, generation: Generation) -> None:
        if generation != self._known:
            logger.info("the backend speaks schema %d of the run protocol", generation)
        self._known = generation


class _Version(msgspec.Struct):
    const: int | None = None


class _Properties(msgspec.Struct):
    schema_version: _Version | None = None


class _Schema(msgspec.Struct):
    properties: _Properties


class _Components(msgspec.Struct):
    schemas: dict[str, msgspec.Raw]


class _Document(msgspec.Struct):
    components: _Components


def _told(document: bytes) -> Generation | None:
    """The generation in an OpenAPI document; None when it says none that is known here."""
    try:
        schemas = msgspec.json.decode(document, type=_Document).components.schemas
        composition = next(schemas[name] for name in _COMPOSITIONS if name in schemas)
        version = msgspec.json.decode(composition, type=_Schema).properties.schema_version
    except (*UNREADABLE, StopIteration):
        return None
    match version:
        case _Version(const=2):
            return 2
        case _Version(const=1 | None):
            # Builds of schema 1 take any number there, and say none.
            return 1
        case _:
            return None


class _Detail(msgspec.Struct):
    type: str = ""
    loc: list[object] = []


class _Refusal(msgspec.Struct):
    detail: list[_Detail] = []


def _is_about_form(used: Generation, refusal: bytes) -> bool:
    """True when a 422 complains of what only the other generation has, or has not.

    Of the body nothing else is looked at: it repeats the request.
    """
    try:
        details = msgspec.json.decode(refusal, type=_Refusal).detail
    except UNREADABLE:
        return False
    wrong = "extra_forbidden" if used == 1 else "missing"
    return any(
        detail.loc[:2] == ["body", "composition"]
        and (
            detail.loc[2:] == ["schema_version"]
            or (detail.loc[2:3] == ["layers"] and detail.loc[4:] == ["type"] and detail.type == wrong)
        )
        for detail in details
    )

"""Finds out which generation of the run protocol a backend speaks, once and again after a refusal.

The same document declares whether the backend takes files with their bytes.

The OpenAPI document of a backend names its generation. Without one, the gateway assumes the generation of
the settings, or else that of the app file, until a refusal proves it wrong. Nothing of this is stored: the
backend may be replaced at any time.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import Final

import msgspec

from agent_gateway.backend.lenient import UNREADABLE
from agent_gateway.domain.ids import Generation
from agent_gateway.errors import BackendError

logger = logging.getLogger(__name__)

_COMPOSITIONS: Final = ("RunComposition", "RunComposition-Input")
"""Names of its schema in an OpenAPI document; the longer one where requests and answers differ."""
_OTHER: Final[dict[Generation, Generation]] = {1: 2, 2: 1}


class Recognition:
    """The generation of one backend, shared by all turns of a process.

    `read` gets the backend's OpenAPI document. `fallback` is the generation of a backend whose document names
    none.
    """

    def __init__(self, read: Callable[[], Awaitable[bytes]], fallback: Generation | None = None) -> None:
        self._read = read
        self._fallback = fallback
        self._known: Generation | None = None
        self._takes_files = False
        self._asked = False
        self._asking: asyncio.Task[None] | None = None

    async def generation(self, written: int) -> Generation:
        """The generation to send; `written` is the schema version of the app file."""
        if not self._asked:
            await self._ask()
        return self._known or self._fallback or (2 if written == 2 else 1)

    async def takes_files(self) -> bool:
        """Whether the backend declares that it takes files with their bytes; asked each time.

        A backend that cannot be reached may be back when the run is made, so its last word counts.
        """
        await self._ask()
        return self._takes_files

    async def after_refusal(self, used: Generation, refusal: bytes) -> Generation | None:
        """The generation to send after a refusal with this body; None when the form was not the reason."""
        if self._known in (None, used):
            await self._ask()
        if self._known in (None, used) and _is_about_form(used, refusal):
            # It has no document, or the document came from another process behind the same address.
            self._know(_OTHER[used])
        return None if self._known == used else self._known

    async def aclose(self) -> None:
        """Stop asking."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait({self._asking})

    async def _ask(self) -> None:
        """Ask the backend. Calls that arrive meanwhile share the same request."""
        if self._asking is None:
            # In a context of its own: its log records do not belong to the first turn that asks.
            self._asking = asyncio.create_task(self._read_document(), context=Context())
        # A caller that is cancelled must not cancel the request for the others.
        await asyncio.shield(self._asking)

    async def _read_document(self) -> None:
        try:
            document = await self._read()
            named = named_generation(document)
            self._takes_files = declares_files(document)
        except BackendError as error:
            if not self._asked:
                logger.info("the backend does not say which generation it speaks: %s", error)
        else:
            if named is not None:
                self._know(named)
        finally:
            self._asked, self._asking = True, None

    def _know(self, generation: Generation) -> None:
        if generation != self._known:
            logger.info("the backend speaks schema %d of the run protocol", generation)
        self._known = generation


class _Declared(msgspec.Struct):
    takes_files: bool = msgspec.field(default=False, name="x-agent-gateway-files")


def declares_files(document: bytes) -> bool:
    """Whether an OpenAPI document says that its server takes files of a message with their bytes."""
    try:
        return msgspec.json.decode(document, type=_Declared).takes_files
    except UNREADABLE:
        return False


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


def named_generation(document: bytes) -> Generation | None:
    """The generation that an OpenAPI document names; None when it names no known one."""
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
            # Builds of schema 1 take any number there, and name none.
            return 1
        case _:
            return None


class _Detail(msgspec.Struct):
    type: str = ""
    loc: list[object] = []


class _Refusal(msgspec.Struct):
    detail: list[_Detail] = []


def _is_about_form(used: Generation, refusal: bytes) -> bool:
    """True when a 422 complains about a difference between the generations.

    Nothing else in the body is read: it repeats the request.
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

"""The async client: `client.py` with `await`."""

import asyncio
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from copy import copy
from types import TracebackType
from typing import Self, TypeVar, Unpack

import httpx

from agent_gateway_client import operations, readings
from agent_gateway_client.async_turn import AsyncTurn
from agent_gateway_client.calls import Call
from agent_gateway_client.errors import ConnectionLost, GatewayError
from agent_gateway_client.methods import AsyncMethod
from agent_gateway_client.openings import Mode, StreamRequest
from agent_gateway_client.operations import MessageOptions
from agent_gateway_client.resumption import OnReconnect, Reader, Resumption
from agent_gateway_client.retry import DEFAULT, Attempts, Retry
from agent_gateway_client.transport import LIMITS, Address, reason_of
from agent_gateway_client.types import HumanInputForm

T = TypeVar("T")


class AsyncClient:
    """One end user at one gateway. An async context manager, for one event loop.

    `user` is your own identifier of the end user. `silence_seconds` is how long a stream may be silent before
    it counts as cut; the gateway pings every 3 seconds unless it is set otherwise. `http_client` is used in
    place of an own one, for example for a proxy or a private certificate authority; the caller closes it.
    Raises ValueError for a URL or a key that cannot be used.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        user: str = "",
        retry: Retry = DEFAULT,
        silence_seconds: float = 15.0,
        http_client: httpx.AsyncClient | None = None,
    ) -> None:
        self._address = Address(url, api_key, silence_seconds)
        self._user = user
        self._retry = retry
        self._is_owner = http_client is None
        self._http = httpx.AsyncClient(limits=LIMITS) if http_client is None else http_client

    @property
    def user(self) -> str:
        """In whose name it calls."""
        return self._user

    def for_user(self, user: str) -> "AsyncClient":
        """A client for another end user over the same connections. To close one closes both."""
        other = copy(self)
        vars(other)["_user"] = user
        return other

    def chat(
        self,
        query: str,
        *,
        mode: Mode | None = None,
        idempotency_key: str | None = None,
        on_reconnect: OnReconnect | None = None,
        **options: Unpack[MessageOptions],
    ) -> AsyncTurn:
        """Send a message and read its answer. Nothing is sent before the first event is asked for.

        `mode` shows other events than the app does: `agent-chat` has its steps. With an `idempotency_key` of
        your own, a message that is sent again by another process is no second turn.
        """
        reader = self._reader(mode, on_reconnect)
        return self._turn(readings.of_message(reader, query, options, idempotency_key))

    def follow(
        self,
        events_url: str,
        *,
        after: int = 0,
        text: str = "",
        mode: Mode | None = None,
        on_reconnect: OnReconnect | None = None,
    ) -> AsyncTurn:
        """Read a turn that another process began, without a key, after an event that was read there.

        `text` is the text up to that event; the answer goes on from it.
        """
        return self._turn(readings.of_url(self._reader(mode, on_reconnect), events_url, after, text))

    def follow_turn(
        self,
        task_id: str,
        *,
        after: int = 0,
        text: str = "",
        mode: Mode | None = None,
        on_reconnect: OnReconnect | None = None,
    ) -> AsyncTurn:
        """Read a turn of this user by its id, with the API key. The rest is as in `follow`."""
        return self._turn(readings.of_task(self._reader(mode, on_reconnect), task_id, after, text))

    def follow_answer(self, message_id: str, *, on_reconnect: OnReconnect | None = None) -> AsyncTurn:
        """Wait until somebody answers the question of this message, and read the turn of the answer."""
        return self._turn(readings.of_answer(self._reader(None, on_reconnect), message_id))

    def answer_form(
        self,
        form: HumanInputForm,
        action: str,
        inputs: Mapping[str, object] | None = None,
        *,
        mode: Mode | None = None,
        on_reconnect: OnReconnect | None = None,
    ) -> AsyncTurn:
        """Submit a form, the `data` of a `human_input_required` event, and read how the agent goes on."""
        return self._turn(readings.of_form(self._reader(mode, on_reconnect), form, action, inputs))

    send_chat_message = AsyncMethod(operations.send_chat_message)
    begin = AsyncMethod(operations.begin)
    stop_chat_message = AsyncMethod(operations.stop_chat_message)
    list_conversations = AsyncMethod(operations.list_conversations)
    delete_conversation = AsyncMethod(operations.delete_conversation)
    rename_conversation = AsyncMethod(operations.rename_conversation)
    list_messages = AsyncMethod(operations.list_messages)
    rate_message = AsyncMethod(operations.rate_message)
    get_suggested_questions = AsyncMethod(operations.get_suggested_questions)
    list_conversation_variables = AsyncMethod(operations.list_conversation_variables)
    update_conversation_variable = AsyncMethod(operations.update_conversation_variable)
    list_feedbacks = AsyncMethod(operations.list_feedbacks)
    upload_file = AsyncMethod(operations.upload_file)
    preview_file = AsyncMethod(operations.preview_file)
    download_file = AsyncMethod(operations.download_file)
    get_human_input_form = AsyncMethod(operations.get_human_input_form)
    submit_human_input_form = AsyncMethod(operations.submit_human_input_form)
    get_app_info = AsyncMethod(operations.get_app_info)
    get_app_meta = AsyncMethod(operations.get_app_meta)
    get_app_site = AsyncMethod(operations.get_app_site)
    get_app_parameters = AsyncMethod(operations.get_app_parameters)
    get_end_user = AsyncMethod(operations.get_end_user)
    audio_to_text = AsyncMethod(operations.audio_to_text)
    text_to_audio = AsyncMethod(operations.text_to_audio)
    get_health = AsyncMethod(operations.get_health)
    get_readiness = AsyncMethod(operations.get_readiness)

    async def send(self, call: Call[T]) -> T:
        """The result of a call. Raises GatewayError."""
        attempts = Attempts(self._retry)
        while True:
            try:
                response = await self._http.request(**self._address.sent(call))
                return call.result(response.status_code, response.headers, response.content)
            except httpx.RequestError as error:
                failure: GatewayError = ConnectionLost(reason_of(error))
                failure.__cause__ = error
            except GatewayError as error:
                failure = error
            if not call.may_repeat(failure):
                raise failure
            await asyncio.sleep(attempts.pause_after(failure))

    async def aclose(self) -> None:
        """Close all connections, except those of an `http_client` that was given."""
        if self._is_owner:
            await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._address.url!r}, user={self.user!r})"

    def _reader(self, mode: Mode | None, on_reconnect: OnReconnect | None) -> Reader:
        return Reader(self._user, self._retry, mode, on_reconnect)

    def _turn(self, resumption: Resumption) -> AsyncTurn:
        return AsyncTurn(resumption, self._open, self.stop_chat_message)

    def _open(self, request: StreamRequest) -> AbstractAsyncContextManager[httpx.Response]:
        return self._http.stream(**self._address.streamed(request))

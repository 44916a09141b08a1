"""Readers that wait for the answer of a question, which any process may get."""

import asyncio
from contextlib import suppress

from agent_gateway.domain.human_input import FormState
from agent_gateway.domain.ids import FormId
from agent_gateway.store.question_forms import FormStatus, FormStore


class FormWaiters:
    """The readers that wait in this process: one query a second for all their forms together."""

    def __init__(self, forms: FormStore) -> None:
        self._forms = forms
        self._waiting: dict[FormId, set[asyncio.Future[FormStatus | None]]] = {}

    async def wait(self, form_id: FormId, seconds: float) -> FormStatus | None:
        """Wait until this form is no longer open; None when that took too long, or nobody may wait."""
        closed: asyncio.Future[FormStatus | None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(form_id, set()).add(closed)
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    return await closed
            return None
        finally:
            waiting = self._waiting[form_id]
            waiting.discard(closed)
            if not waiting:
                del self._waiting[form_id]

    async def poll(self) -> None:
        """Read where the awaited forms stand, and wake the readers of those that are closed."""
        if not self._waiting:
            return
        awaited = list(self._waiting)
        statuses = await self._forms.statuses(awaited)
        for form_id in awaited:
            # One that is gone was deleted with its conversation (R18).
            status = statuses.get(form_id) or FormStatus(form_id, FormState.CANCELLED, None)
            if status.state is not FormState.OPEN:
                self._wake(form_id, status)

    def leave(self) -> None:
        """The process has to go: nobody waits here any longer."""
        for form_id in self._waiting:
            self._wake(form_id, None)

    def _wake(self, form_id: FormId, status: FormStatus | None) -> None:
        for closed in self._waiting.get(form_id, ()):
            if not closed.done():
                closed.set_result(status)

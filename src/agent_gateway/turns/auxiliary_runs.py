"""Runs that the gateway makes on its own account: a name, suggested questions, the close of a session.

One helper creates such a run and folds it to its output within a bound. Its output goes only to the caller:
never into a conversation's session, never into logs.
"""

import asyncio
import logging
from collections.abc import Mapping

from agent_gateway.backend.auxiliary_outputs import name_in, questions_in
from agent_gateway.backend.compose import compose_auxiliary, compose_closing
from agent_gateway.backend.fold.terminal import RunEnd
from agent_gateway.backend.fold.translate import Fold
from agent_gateway.backend.protocol import Backend, CreateRunRequest
from agent_gateway.backend.run_handle import RunHandle, cancel_quietly
from agent_gateway.domain.ids import RunId
from agent_gateway.domain.turns import AnsweredTurn, Turn
from agent_gateway.errors import RunLost, RunNotSucceeded

logger = logging.getLogger(__name__)


class AuxiliaryRuns:
    """Makes such runs. All methods raise BackendError, TurnError (no request can be composed) and
    TimeoutError, after which the run was cancelled.
    """

    def __init__(self, backend: Backend, environ: Mapping[str, str], cancel_seconds: float) -> None:
        self._backend = backend
        self._environ = environ
        self._cancel_seconds = cancel_seconds
        self._closes = True
        """False once the backend has said that it makes no clean-up runs."""

    async def name(self, answered: AnsweredTurn, seconds: float) -> str | None:
        """A name for the conversation of this turn; None when the app makes none, or the run did not."""
        naming = answered.turn.app.config.naming
        if naming is None:
            return None
        request = compose_auxiliary(naming.composition, answered, self._environ)
        return name_in(await self._output(request, seconds)) or None

    async def questions(self, answered: AnsweredTurn, seconds: float) -> list[str]:
        """What the user may ask after this turn."""
        composition = answered.turn.app.config.suggested_questions_after_answer.composition
        if composition is None:
            return []
        request = compose_auxiliary(composition, answered, self._environ)
        return questions_in(await self._output(request, seconds))

    async def close(self, turn: Turn, seconds: float) -> None:
        """Close the session that the turn's conversation holds, if the backend keeps any."""
        if turn.snapshot is None or not self._closes:
            return
        try:
            await self._output(compose_closing(turn, self._environ), seconds)
        except RunNotSucceeded as error:
            if not error.misses_model:
                raise
            # It keeps no sessions, and will say so every time: nobody asks it again.
            self._closes = False
            logger.info("the backend makes no clean-up runs: sessions are not closed there")

    async def _output(self, request: CreateRunRequest, seconds: float) -> str:
        run = RunHandle(self._backend, self._cancel_seconds)
        try:
            async with asyncio.timeout(seconds):
                return await self._fold(await run.create(request))
        except (TimeoutError, asyncio.CancelledError):
            run_id = await run.abandon()
            if run_id is not None:
                await cancel_quietly(self._backend, run_id, self._cancel_seconds)
            raise

    async def _fold(self, run_id: RunId) -> str:
        fold = Fold()
        await self._backend.stream(run_id, fold.feed)
        if fold.run_end is None:
            raise RunLost("the stream ended without a terminal event")
        return _output_of(fold.run_end) or fold.answer


def _output_of(end: RunEnd) -> str:
    if end.type == "run_succeeded" and end.question is None:
        return end.text
    if end.misses_model:
        raise RunNotSucceeded("its composition has no model", misses_model=True)
    if end.failure is not None:
        raise RunNotSucceeded(str(end.failure.cause))
    raise RunNotSucceeded(end.type if end.question is None else "it asks a human")

"""The run of a turn, folded into the turn's events; owner and follower do the same."""

from collections.abc import Callable, Sequence

from agent_gateway.backend.fold.translate import Fold
from agent_gateway.backend.protocol import Backend, RunEvent
from agent_gateway.domain.events import FormAnswered, MessageReplace, Result, TurnEvent, rest_of
from agent_gateway.domain.ids import RunId
from agent_gateway.domain.turns import Turn
from agent_gateway.errors import RunLost


class Folding:
    """Folds the run of one turn and emits its events, each once."""

    def __init__(
        self,
        backend: Backend,
        turn: Turn,
        emit: Callable[[Sequence[TurnEvent]], None],
        on_events: Callable[[float], bool],
    ) -> None:
        """`on_events` is called for each read of the run that brings turn events, until it returns False.

        Its argument is the loop's time.
        """
        self._on_events: Callable[[float], bool] | None = on_events
        self.fold = Fold(version=turn.fold_version)
        self._backend = backend
        self._emit = emit
        self.past_lost_at = 0
        """Position of the event that replaced a lost past; 0 when there is none."""
        self.is_reading = False
        """True while the run's stream is read."""
        self._saved = 0
        """Position up to which the fold is stored as a checkpoint."""
        self._dumped = 0
        """The same of the checkpoint that was taken last, stored or not."""

    @property
    def run_has_ended(self) -> bool:
        """True once the run's terminal event was folded."""
        return self.fold.run_end is not None

    def begin(self, turn: Turn) -> None:
        """The form's answer comes before all that the run says; it is committed already."""
        if turn.form is not None and self.fold.position == 0:
            self.fold = Fold(turn.opening, turn.fold_version)
            self._emit([FormAnswered(turn.opening, turn.form)])

    async def read(self, run_id: RunId, heard: Callable[[], float]) -> None:
        """Fold the run's events from where the fold stands until its terminal one.

        `heard` is called for each read, and tells the loop's time.
        Raises what `Backend.stream` raises, and RunLost when the stream ends without a terminal event.
        """

        def fold(events: list[RunEvent]) -> None:
            told = self.fold.feed(events)
            now = heard()
            if told:
                self._emit(told)
                if self._on_events is not None and not self._on_events(now):
                    self._on_events = None

        self.is_reading = True
        try:
            await self._backend.stream(run_id, fold, self.fold.cursors)
        finally:
            self.is_reading = False
        if not self.run_has_ended:
            raise RunLost("the stream ended without a terminal event")

    def continue_with(self, fold: Fold, events: Sequence[TurnEvent]) -> None:
        """Continue with another fold of the same run, which is at least as far; `events` are all of it."""
        self._emit([event for event in events if event.position > self.fold.position])
        self.fold = fold

    def restore(self, turn: Turn) -> bool:
        """Continue from the turn's checkpoint if it is further than ours; its text is emitted whole (R5)."""
        if turn.checkpoint is None:
            return False
        fold = Fold.load(turn.checkpoint, turn.fold_version)
        if fold.position <= self.fold.position:
            return False
        self.fold = fold
        self.past_lost_at = fold.position
        self._emit([MessageReplace(fold.position, fold.answer, "past_lost")])
        return True

    def emit_rest(self, result: Result) -> None:
        """Emit how the turn ended, from where the fold stands."""
        self._emit(rest_of(result, self.fold.position))

    def checkpoint(self) -> bytes | None:
        """The fold's whole state, or None when there is nothing new to store (R5)."""
        if self.run_has_ended or self.fold.position <= self._saved:
            return None
        self._dumped = self.fold.position
        return self.fold.dump()

    def checkpointed(self) -> None:
        """The checkpoint that was taken last is stored."""
        self._saved = self._dumped

    def release_memory(self) -> None:
        """Let go of the texts: they are stored, and in the log."""
        self.fold.run_end = None
        self.fold.chunks.clear()
        self.fold.files.clear()

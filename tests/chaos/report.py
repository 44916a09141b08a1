"""The measurements of a chaos run: for people, as JSON, and as a table of fault × outcome."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from statistics import quantiles
from typing import Any, Final

from tests.chaos.check import Violation, reasons_to_take
from tests.chaos.postgres import role_of
from tests.chaos.truth import Change, Row, Truth
from tests.chaos.view import Sent, connections_of
from tests.chaos.world import Applied, Config, Record

TAKES_OWNER: Final = frozenset({"kill", "freeze", "deploy", "db_partition", "db_stall", "blackout"})
"""Faults after which a turn may need another owner."""
_BROKEN: Final = frozenset({"once", "run", "view", "outcome"})


@dataclass
class Tally:
    """The outcomes of the turns that one kind of fault hit."""

    injected: int = 0
    turns: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    """completed, stopped, failed (by the run itself), interrupted (its run was not known yet)."""
    taken_over: list[float] = field(default_factory=list)
    """Seconds from the fault to a new owner, of turns that got one."""
    text_again: list[float] = field(default_factory=list)
    """Seconds from the fault until a reader that had been connected there saw the next event."""
    gone: list[float] = field(default_factory=list)
    """Seconds from SIGTERM until the process was gone."""


@dataclass
class Report:
    """One seed, or many added up."""

    config: Config
    seconds: float
    seeds: list[int]
    counts: dict[str, int]
    tallies: dict[str, Tally]
    statuses: dict[str, int]
    violations: list[Violation]
    timeline: list[str]
    logs: list[str]

    def add(self, other: "Report") -> None:
        """Add another seed's numbers to these; its timeline and logs are not kept."""
        self.seeds += other.seeds
        self.seconds += other.seconds
        self.counts = dict(Counter(self.counts) + Counter(other.counts))
        self.statuses = dict(Counter(self.statuses) + Counter(other.statuses))
        self.violations += other.violations
        for kind, tally in other.tallies.items():
            mine = self.tallies.setdefault(kind, Tally())
            mine.injected += tally.injected
            mine.turns += tally.turns
            mine.outcomes = dict(Counter(mine.outcomes) + Counter(tally.outcomes))
            mine.taken_over += tally.taken_over
            mine.text_again += tally.text_again
            mine.gone += tally.gone

    def as_json(self) -> dict[str, Any]:
        """All numbers; without the processes' logs."""
        told = asdict(self)
        del told["logs"]
        told["config"]["faults"] = sorted(self.config.faults)
        return told

    def failure(self) -> str:
        """The information that is needed to find out what went wrong."""
        wrong = [str(violation) for violation in self.violations[:40]]
        return "\n".join(
            [f"seed {self.seeds}: {len(self.violations)} violations", *wrong, "", *self.timeline]
        )


def make_report(
    config: Config,
    began: float,
    record: Record,
    truth: Truth,
    violations: list[Violation],
    logs: list[str],
) -> Report:
    """Measure one run."""
    rows = list(truth.rows.values())
    sent_of = {sent.task_id: sent for sent in record.sent}
    tallies: dict[str, Tally] = {}
    for fault in record.faults:
        tally = tallies.setdefault(fault.kind, Tally())
        tally.injected += 1
        tally.gone += [] if fault.gone_after is None else [fault.gone_after]
        for row in rows:
            if _hit(fault, row, sent_of.get(row.task_id)):
                tally.turns += 1
                outcome = _outcome(row)
                tally.outcomes[outcome] = tally.outcomes.get(outcome, 0) + 1
                if fault.kind in TAKES_OWNER:
                    tally.taken_over += _taken_over(fault, row)
                tally.text_again += _text_again(fault, row, sent_of.get(row.task_id))
    return Report(
        config=config,
        seconds=config.seconds,
        seeds=[config.seed],
        counts=_counts(record, rows, truth),
        tallies=tallies,
        statuses=dict(
            Counter(
                f"{answer.request} {answer.status} {answer.code}".strip()
                for sent in record.sent
                for answer in sent.answered
            )
        ),
        violations=violations,
        timeline=_timeline(began, record, rows),
        logs=logs,
    )


def spread(times: list[float]) -> str:
    """Median, 95th percentile and longest, in seconds."""
    if not times:
        return "–"
    if len(times) == 1:
        return f"{times[0]:.1f}"
    cuts = quantiles(times, n=20, method="inclusive")
    return f"{cuts[9]:.1f} / {cuts[18]:.1f} / {max(times):.1f}"


def _counts(record: Record, rows: list[Row], truth: Truth) -> dict[str, int]:
    readers = [view for sent in record.sent for view in sent.views]
    outcomes = Counter(_outcome(row) for row in rows)
    return {
        "messages": len(record.sent),
        "turns": len(rows),
        "runs": len(truth.runs),
        "posts": sum(answer.request == "POST" for sent in record.sent for answer in sent.answered),
        "readers": len(readers),
        "connections": sum(len(view.connections) for view in readers),
        "events": sum(len(view.events) for view in readers),
        "replaces": sum(event.kind == "message_replace" for view in readers for event in view.events),
        "faults": len(record.faults),
        "adopted turns": sum(any(_changes_of_owner(row)) for row in rows),
        "adoptions": sum(len(list(_changes_of_owner(row))) for row in rows),
        "adoptions after a release": sum(
            before.owner is None for row in rows for before, _ in _changes_of_owner(row)
        ),
        "fenced owners": _fenced(record, rows),
        "adoptions for no fault": sum(not kinds for row in rows for _, kinds in reasons_to_take(record, row)),
        **outcomes,
    }


def _fenced(record: Record, rows: list[Row]) -> int:
    """Turns that were taken from a process which was alive and woke up again."""
    return sum(
        before.owner is not None
        and any(
            fault.kind in ("freeze", "db_partition", "db_stall")
            and _on(fault, before.owner_role)
            and fault.began <= after.at <= (fault.ended or after.at) + 1.0
            for fault in record.faults
        )
        for row in rows
        for before, after in _changes_of_owner(row)
    )


def _changes_of_owner(row: Row) -> Iterator[tuple[Change, Change]]:
    """Each adoption: the change before it and itself. The first owner of a queued turn does not count."""
    owned = False
    before: Change | None = None
    for change in row.history:
        if before is not None and owned and change.owner not in (None, before.owner):
            yield before, change
        owned = owned or change.owner is not None
        before = change


def _outcome(row: Row) -> str:
    if row.outcome == "failed" and row.run_id is None:
        return "interrupted"
    return row.outcome or row.state


def _hit(fault: Applied, row: Row, sent: Sent | None) -> bool:
    """Whether the fault happened to the turn's owner, or to one of its readers."""
    if not row.created <= fault.began <= row.ended:
        return False
    if fault.kind.startswith("client_"):
        return sent is not None and bool(_broken_readers(fault, sent))
    last = [change for change in row.history if change.at <= fault.began and change.owner is not None][-1:]
    return any(_on(fault, change.owner_role) for change in last)


def _on(fault: Applied, role: str) -> bool:
    return fault.replica is None or role_of(fault.replica) == role


def _taken_over(fault: Applied, row: Row) -> list[float]:
    after = [change for _, change in _changes_of_owner(row) if change.at > fault.began]
    return [after[0].at - fault.began] if after else []


def _broken_readers(fault: Applied, sent: Sent) -> list[int]:
    return [
        number
        for number, view in enumerate(sent.views)
        if any(
            connection.opened <= fault.began <= connection.closed
            and fault.replica in (None, connection.replica)
            for connection in view.connections
        )
    ]


def _text_again(fault: Applied, row: Row, sent: Sent | None) -> list[float]:
    if sent is None:
        return []
    waits: list[float] = []
    for number in _broken_readers(fault, sent):
        after = [event.at for event in sent.views[number].events if event.at > fault.began]
        waits += [after[0] - fault.began] if after and after[0] <= row.ended + 1.0 else []
    return waits


def _timeline(began: float, record: Record, rows: Iterable[Row]) -> list[str]:
    moments = [
        (
            fault.began,
            f"{fault.kind} of {_who(fault)} until +{max(0.0, fault.ended - began):.2f} {fault.note}",
        )
        for fault in record.faults
    ]
    for row in rows:
        moments += [
            (
                change.at,
                f"{row.query}: {before.owner_role or 'nobody'} → {change.role}, epoch {change.epoch}",
            )
            for before, change in _changes_of_owner(row)
        ]
    return [f"+{at - began:6.2f} {what}" for at, what in sorted(moments)]


def _who(fault: Applied) -> str:
    return "everybody" if fault.replica is None else f"process {fault.replica}"


def cuts_by_reason(record: Record) -> dict[str, int]:
    """How connections of readers ended."""
    return dict(Counter(connection.how for sent in record.sent for _, connection in connections_of(sent)))

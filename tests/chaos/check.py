"""The offline check: every promise, held against what was seen, stored and run."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from tests.chaos.check_views import check_views
from tests.chaos.plan import loses_create
from tests.chaos.postgres import role_of
from tests.chaos.run_log import UNKNOWN, prompts, said
from tests.chaos.truth import Row, RunTruth, Truth
from tests.chaos.view import Sent
from tests.chaos.world import Config, Record

MOST_ADOPTIONS: Final = 5
"""A turn that was adopted this often fails instead of walking on through the fleet (R11)."""
_BUG: Final = re.compile(
    r"Traceback|CompileError|ProgrammingError|Violation|IntegrityError|never retrieved|never awaited|Deadlock"
)
_NEXT: Final = {
    "queued": {"queued", "planned", "ended"},
    "planned": {"planned", "sending", "ended"},
    "sending": {"sending", "running", "ended"},
    "running": {"running", "ended"},
    "ended": set[str](),
}


@dataclass(frozen=True)
class Violation:
    """A broken promise."""

    rule: str
    about: str
    """Query or task id."""
    text: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.about}: {self.text}"


def check(config: Config, record: Record, truth: Truth, logs: list[str]) -> list[Violation]:
    """Everything that is wrong; nothing, if the promises were kept."""
    found = [Violation("world", "-", problem) for problem in record.problems]
    found += [Violation("run log", "-", problem) for problem in truth.log_problems]
    found += [Violation("log", f"process {n}", line) for n, log in enumerate(logs) for line in _bugs(log)]
    rows_of: dict[str, list[Row]] = {}
    for row in truth.rows.values():
        rows_of.setdefault(row.query, []).append(row)
    runs_of: dict[str, list[RunTruth]] = {}
    for run in truth.runs:
        runs_of.setdefault(run.task_id, []).append(run)
    for sent in record.sent:
        rows = rows_of.pop(sent.query, [])
        found += [Violation("once", sent.query, text) for text in _check_sent(sent, rows, truth)]
        for row in rows:
            runs = runs_of.pop(row.task_id, [])
            for rule, text in _check_turn(config, record, row, runs, sent):
                found.append(Violation(rule, f"{sent.query} ({row.task_id})", text))
            run = runs[0] if runs else None
            found += [Violation("view", sent.query, text) for text in check_views(sent, row, run)]
    found += [Violation("once", query, "a turn that no client sent") for query in rows_of]
    found += [Violation("run", task_id, "a run of no turn") for task_id in runs_of]
    found += _check_conversations(truth, record)
    return found


def _check_sent(sent: Sent, rows: list[Row], truth: Truth) -> Iterator[str]:
    yield from sent.trouble
    if len(rows) > 1:
        yield f"{len(rows)} turns of one message"
    if len(sent.task_ids) > 1:
        yield f"one key, several turns: {sent.task_ids}"
    if sent.accepted and not rows:
        yield f"accepted as {sent.task_id}, and there is no turn"
    if rows and sent.task_ids and sent.task_id != rows[0].task_id:
        yield f"told {sent.task_id}, stored as {rows[0].task_id}"
    if rows and truth.keys.get(sent.key) != rows[0].task_id:
        yield f"its key is of turn {truth.keys.get(sent.key)}, not {rows[0].task_id}"
    if rows and sent.conversation_ids - {rows[0].conversation_id}:
        yield f"told of conversations {sent.conversation_ids}, stored in {rows[0].conversation_id}"
    busy = [answer for answer in sent.answered if answer.status == 409]
    if busy:
        yield f"refused as busy: {busy[0]}"


def _check_turn(
    config: Config, record: Record, row: Row, runs: list[RunTruth], sent: Sent
) -> Iterator[tuple[str, str]]:
    if row.state != "ended" or row.outcome is None:
        yield "stuck", f"still {row.state}, outcome {row.outcome}"
        return
    if len(runs) > 1:
        yield "run", f"{len(runs)} runs"
    run = runs[0] if runs else None
    if row.run_id is not None and (run is None or run.run_id != row.run_id):
        yield "run", f"stored run {row.run_id}, real run {run and run.run_id}"
    if row.outcome == "stopped" and sent.stop_asked is None:
        yield "outcome", "stopped without a request"
    if (row.outcome == "failed") != (row.error_code is not None):
        yield "outcome", f"{row.outcome} with error code {row.error_code}"
    yield from (("history", text) for text in _check_history(row))
    yield from (("drain", text) for text in _check_drain(record, row))
    if row.run_id is None:
        yield from (("outcome", text) for text in _check_unknown_run(record, row, runs))
    elif run is not None:
        yield from (("outcome", text) for text in _check_known_run(row, run))


def _check_known_run(row: Row, run: RunTruth) -> Iterator[str]:
    """The run is known, so nothing but its own end, or a stop, may decide."""
    match row.outcome:
        case "completed":
            if run.ending != "run_succeeded":
                yield f"completed, but the run's end is {run.ending or 'open'}"
            if row.answer != run.answer:
                yield f"answer {_differ(row.answer, run.answer)}"
        case "stopped":
            whole = run.text if not row.gateway_made else run.text[: len(row.answer)]
            if row.answer != whole:
                yield f"partial answer {_differ(row.answer, whole)}"
        case _ if row.adoptions >= MOST_ADOPTIONS:
            pass
        case _:
            if run.ending != "run_failed" or row.error_code != run.failure:
                yield f"failed as {row.error_code}, but the run's end is {run.ending or 'open'} {run.failure}"
            if row.answer != run.text:
                yield f"partial answer {_differ(row.answer, run.text)}"


def _check_unknown_run(record: Record, row: Row, runs: list[RunTruth]) -> Iterator[str]:
    """Ended before the run's id was stored: stopped early, or visibly interrupted by something real."""
    if row.answer:
        yield f"no run is known, but there is an answer: {row.answer[:60]!r}"
    if row.outcome == "completed":
        yield "completed without a run"
    if row.outcome == "failed":
        if row.error_code not in ("turn_interrupted", "service_unavailable"):
            yield f"failed as {row.error_code} without a run"
        excused = loses_create(row.query) or any(
            fault.began <= row.ended and row.created <= (fault.ended or row.ended) + 1.0
            for fault in record.faults
            if not fault.kind.startswith("client_")
        )
        if not excused:
            yield f"failed as {row.error_code} without a run, and nothing had happened"
    elif row.outcome == "stopped" and runs and not row.gateway_made:
        yield "stopped without knowing its run, but not by the gateway"


def _check_history(row: Row) -> Iterator[str]:
    sendings = sum(
        change.state == "sending" and (before is None or before.state != "sending")
        for before, change in pairwise([None, *row.history])
        if change is not None
    )
    if sendings > 1:
        yield f"armed {sendings} times"
    for before, after in pairwise(row.history):
        if after.state not in _NEXT[before.state]:
            yield f"{before.state} → {after.state} by {after.role}"
        if after.epoch < before.epoch:
            yield f"epoch {before.epoch} → {after.epoch} by {after.role}"
        if after.owner != before.owner and after.epoch == before.epoch and after.state != "ended":
            yield f"another owner under the same epoch {after.epoch} by {after.role}"
        if before.stop and not after.stop:
            yield f"the stop was taken back by {after.role}"


def _check_drain(record: Record, row: Row) -> Iterator[str]:
    """A process that was asked to stop released its turns instead of leaving them to their leases (R12)."""
    for role, kinds in reasons_to_take(record, row):
        if kinds == {"deploy"}:
            yield f"left to its lease by {role}, which was deployed"


def reasons_to_take(record: Record, row: Row) -> Iterator[tuple[str, set[str]]]:
    """For each adoption by lease: the former owner, and the faults that hit it while it was one.

    None means that it was alive and too slow to renew: a machine with too much to do.
    """
    held_since: dict[str, float] = {}
    for before, after in pairwise(row.history):
        if before.owner is None:
            continue
        since = held_since.setdefault(before.owner, before.at)
        if after.owner in (None, before.owner):
            continue
        yield (
            before.owner_role,
            {
                fault.kind
                for fault in record.faults
                if fault.replica is None or role_of(fault.replica) == before.owner_role
                if fault.began <= after.at and since <= (fault.ended or after.at)
                if not fault.kind.startswith("client_")
            },
        )


def _bugs(log: str) -> Iterator[str]:
    """Lines of a process's log that no fault explains."""
    return (line for line in log.splitlines() if _BUG.search(line))


def _check_conversations(truth: Truth, record: Record) -> Iterator[Violation]:
    """Snapshots never fork, and turns run in the order in which they were sent."""
    runs = {run.task_id: run for run in truth.runs}
    talks: dict[str, list[Row]] = {}
    for row in sorted(truth.rows.values(), key=lambda row: row.seq):
        talks.setdefault(row.conversation_id, []).append(row)
    for conversation_id, rows in talks.items():
        if [row.seq for row in rows] != list(range(1, len(rows) + 1)):
            yield Violation("order", conversation_id, f"numbers of turns: {[row.seq for row in rows]}")
        yield from _check_snapshots(rows, runs, truth.snapshots.get(conversation_id, ""))
        newest = 0
        for row in rows:
            # An unknown run may be made late, by a process that froze while it was sending.
            if (run := runs.get(row.task_id)) is not None and row.run_id is not None:
                if run.number < newest:
                    yield Violation("order", row.query, "its run was made before that of an earlier turn")
                newest = max(newest, run.number)
    yield from _check_order(truth, record)


def _check_snapshots(rows: list[Row], runs: dict[str, RunTruth], stored: str) -> Iterator[Violation]:
    """Each run of a conversation continues the one before it, or answers the question it asked."""
    snapshot, question = "", ""
    for row in rows:
        run = runs.get(row.task_id)
        if row.answers not in ("", question) or (run and question and not row.answers):
            yield Violation("question", row.query, "it is not the answer to the question before it")
        start = runs[row.answers].snapshot_out if row.answers in runs else snapshot
        question = question if run is None and not row.answers else ""
        if run is None:
            continue
        if run.snapshot_in == UNKNOWN:
            yield from _check_agent(row, run, start)
        elif (run.snapshot_in, run.answers) != (start, bool(row.answers)):
            yield Violation("snapshot", row.query, "the run did not start from the snapshot before it")
        if run.asked:
            question = row.task_id if row.outcome == "completed" else ""
        # Nothing is taken from a run that no process knew.
        elif row.run_id is not None and not row.gateway_made and run.snapshot_out:
            snapshot = run.snapshot_out
    if stored != snapshot:
        yield Violation("snapshot", rows[0].query, "the stored one is not that of the last run")


def _check_agent(row: Row, run: RunTruth, start: str) -> Iterator[Violation]:
    """The embedded agent said what it always says to this query in this conversation, or a part of it."""
    want = said(start, row.query)
    is_whole = run.ending == "run_succeeded"
    if run.text != want if is_whole else not want.startswith(run.text):
        yield Violation("agent", row.query, f"its text {_differ(run.text, want)}")
    if run.snapshot_out and prompts(run.snapshot_out) != [*prompts(start), row.query]:
        yield Violation("snapshot", row.query, "the run did not continue the snapshot before it")


def _check_order(truth: Truth, record: Record) -> Iterator[Violation]:
    accepted: dict[str, list[tuple[float, Row]]] = {}
    for sent in record.sent:
        row = truth.rows.get(sent.task_id or "")
        if row is not None:
            accepted.setdefault(row.conversation_id, []).append((sent.began, row))
    for rows in accepted.values():
        for (_, before), (_, after) in pairwise(sorted(rows, key=lambda pair: pair[0])):
            if after.seq < before.seq:
                yield Violation("order", after.query, f"sent after {before.query!r}, but numbered before it")


def _differ(got: str, want: str) -> str:
    """Where two texts part."""
    same = next(
        (n for n, (a, b) in enumerate(zip(got, want, strict=False)) if a != b), min(len(got), len(want))
    )
    got_there, want_there = got[same : same + 40], want[same : same + 40]
    return f"({len(got)} of {len(want)} characters) parts at {same}: {got_there!r} / {want_there!r}"


def count_rules(violations: list[Violation]) -> dict[str, int]:
    """How often each rule was broken."""
    return dict(Counter(violation.rule for violation in violations))

"""The check accepts a correct history and reports each violation."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.chaos.check import check
from tests.chaos.truth import Change, Row, RunTruth, Truth
from tests.chaos.view import Connection, Seen, Sent, View
from tests.chaos.world import Applied, Config, Record

TASK, CONVERSATION, RUN = "task", "conversation", "run"
WORDS = ["one ", "two ", "three "]


def change(at: float, state: str, owner: str | None = "a", epoch: int = 1, process: int = 0) -> Change:
    outcome = "completed" if state == "ended" else None
    role = f"gateway_{process}"
    return Change(at, role, role if owner else "", state, owner, epoch, 0, False, outcome)


def seen(position: int, kind: str, **more: Any) -> Seen:
    ids = {"task_id": TASK, "conversation_id": CONVERSATION, "message_id": "message"}
    return Seen(20.0 + position, position, kind, {"event": kind, **ids, **more})


class Story:
    """One completed turn and a reader that saw all of it; a test breaks one thing."""

    def __init__(self) -> None:
        chunks = [seen(number, "message", answer=word) for number, word in enumerate(WORDS, start=1)]
        self.view = View("chat", ids=True, events=[*chunks, seen(5, "message_end")])
        self.view.connections.append(Connection(0, 10.0, 20.0, "ended"))
        self.sent = Sent("query", "key", 0, 10.0)
        self.sent.accept(10.0, TASK, CONVERSATION)
        self.sent.views.append(self.view)
        history = [change(10.0, "planned"), change(11.0, "sending"), change(12.0, "running")]
        self.row = Row(
            task_id=TASK,
            conversation_id=CONVERSATION,
            seq=1,
            query="query",
            state="ended",
            outcome="completed",
            error_code=None,
            run_id=RUN,
            adoptions=0,
            stop=False,
            created=10.0,
            ended=20.0,
            end_position=5,
            answer="".join(WORDS),
            steps=[],
            history=[*history, change(20.0, "ended")],
        )
        answer = "".join(WORDS)
        self.runs = [RunTruth(RUN, TASK, 1, answer, "run_succeeded", answer, "", "", "snapshot")]
        self.snapshots = {CONVERSATION: "snapshot"}
        self.record = Record(sent=[self.sent])
        self.log = "INFO all is well"

    def problems(self) -> list[str]:
        truth = Truth({TASK: self.row}, self.runs, self.snapshots, {"key": TASK})
        return [str(found) for found in check(Config(seed=0), self.record, truth, [self.log])]


def lose_a_chunk(story: Story) -> None:
    del story.view.events[1]


def double_a_chunk(story: Story) -> None:
    story.view.events.insert(1, story.view.events[1])


def end_twice(story: Story) -> None:
    story.view.events.append(seen(6, "message_end"))


def tell_before_it_is_stored(story: Story) -> None:
    story.row = replace(story.row, ended=30.0)


def store_less(story: Story) -> None:
    story.row = replace(story.row, answer="one two ")


def run_twice(story: Story) -> None:
    story.runs.append(replace(story.runs[0], run_id="another", number=2))


def never_end(story: Story) -> None:
    story.row = replace(story.row, state="running", outcome=None)


def fail_for_nothing(story: Story) -> None:
    story.row = replace(story.row, outcome="failed", error_code="turn_interrupted")


def fail_unknown_for_nothing(story: Story) -> None:
    story.view.events.clear()
    story.runs.clear()
    story.snapshots.clear()
    lost = {"run_id": None, "answer": "", "outcome": "failed", "error_code": "turn_interrupted"}
    story.row = replace(story.row, **lost)


def fork_the_snapshot(story: Story) -> None:
    story.snapshots[CONVERSATION] = "another"


def begin_from_elsewhere(story: Story) -> None:
    story.runs[0] = replace(story.runs[0], snapshot_in="another")


def make_a_second_turn(story: Story) -> None:
    story.sent.task_ids.add("another")


def contradict_another_reader(story: Story) -> None:
    late = View("chat", ids=True, events=[*story.view.events])
    late.events[0] = seen(1, "message", answer="One ")
    story.sent.views.append(late)


def write_as_a_zombie(story: Story) -> None:
    story.row.history.insert(3, change(13.0, "running", "b", epoch=1, process=1))


def adopt_after_a_drain_by_lease(story: Story) -> None:
    story.row.history[3:] = [change(13.0, "running", "b", 2, 1), change(20.0, "ended", "b", 2, 1)]
    story.record.faults.append(Applied("deploy", 0, 12.5, 12.9))


def crash(story: Story) -> None:
    story.log += "\nTraceback (most recent call last):"


BREAKS: list[tuple[str, Callable[[Story], None]]] = [
    ("shows 10 characters", lose_a_chunk),
    ("positions do not grow", double_a_chunk),
    ("not one end", end_twice),
    ("before it was stored", tell_before_it_is_stored),
    ("outcome: ", store_less),
    ("2 runs", run_twice),
    ("stuck: ", never_end),
    ("but the run's end is run_succeeded", fail_for_nothing),
    ("nothing had happened", fail_unknown_for_nothing),
    ("snapshot: ", fork_the_snapshot),
    ("did not start from the snapshot", begin_from_elsewhere),
    ("several turns", make_a_second_turn),
    ("position 1 is two events", contradict_another_reader),
    ("another owner under the same epoch", write_as_a_zombie),
    ("left to its lease", adopt_after_a_drain_by_lease),
    ("log: ", crash),
]


def test_a_correct_history_passes_the_check() -> None:
    assert Story().problems() == []


@pytest.mark.parametrize(("told", "break_it"), BREAKS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_violation_is_reported_by_the_check(told: str, break_it: Callable[[Story], None]) -> None:
    story = Story()
    break_it(story)
    assert any(told in problem for problem in story.problems()), story.problems()

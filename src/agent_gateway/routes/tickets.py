"""Tickets: what lets a browser's EventSource, which can send no headers, follow exactly one turn."""

from typing import Final, NamedTuple

from itsdangerous import BadSignature, URLSafeTimedSerializer

from agent_gateway.domain import AppId, TaskId
from agent_gateway.errors import Unauthorized

SALT: Final = "events-ticket"


class Ticket(NamedTuple):
    """Whom a ticket lets in, and to which turn."""

    task_id: TaskId
    app_id: AppId
    user: str


class Tickets:
    """Signs tickets and reads them back. They hold no secret and expire after `seconds`."""

    def __init__(self, secret: bytes, *, seconds: float, public_url: str = "") -> None:
        self._serializer = URLSafeTimedSerializer(secret, salt=SALT)
        self._seconds = int(seconds)
        self._public_url = public_url

    def events_url(self, ticket: Ticket) -> str:
        """The URL that follows this turn, with its ticket in it; a path unless PUBLIC_URL is set."""
        signed = self._serializer.dumps([ticket.task_id, ticket.app_id, ticket.user])
        return f"{self._public_url}/chat-messages/{ticket.task_id}/events?ticket={signed}"

    def read(self, text: str) -> Ticket:
        """The ticket in this text; Unauthorized when it is not ours or has expired."""
        try:
            task_id, app_id, user = self._serializer.loads(text, max_age=self._seconds)
        except BadSignature:
            raise Unauthorized("The ticket is not valid or has expired.") from None
        return Ticket(TaskId(task_id), AppId(app_id), user)

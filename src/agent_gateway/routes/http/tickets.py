"""Tickets: signed tokens in URLs. They let clients without headers follow one turn, or get one file."""

import math
from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec
from itsdangerous import BadSignature, TimestampSigner, URLSafeSerializer, URLSafeTimedSerializer
from itsdangerous.encoding import base64_encode
from typing_extensions import override

from agent_gateway.domain.ids import AppId, FileId, TaskId
from agent_gateway.errors import Unauthorized

SALT: Final = "events-ticket"
FILE_SALT: Final = "file-ticket"
DAY_SECONDS: Final = 24 * 3600
LEEWAY_SECONDS: Final = 60
"""How far the clocks of two processes may differ."""


class _Serializer(URLSafeTimedSerializer):
    """Does not try to compress: a ticket is hardly longer for it, and the attempt takes 50 us a turn."""

    @override
    def dump_payload(self, obj: object) -> bytes:
        return base64_encode(msgspec.json.encode(obj))


Clock = Callable[[], float]
"""Seconds since 1970 by the clock that all processes share: the database's."""


class Ticket(NamedTuple):
    """The contents of a signed token: a turn, and the app and the user that it belongs to."""

    task_id: TaskId
    app_id: AppId
    user: str


class Tickets:
    """Signs tickets and reads them back. They hold no secret and expire after `seconds`.

    Only the expiry is checked: a ticket from a process whose clock is ahead is valid, too.
    """

    def __init__(self, secret: bytes, *, seconds: float, clock: Clock, public_url: str = "") -> None:
        class Signer(TimestampSigner):
            def get_timestamp(self) -> int:
                return int(clock())

        self._serializer = _Serializer(secret, salt=SALT, signer=Signer)
        self._signer = self._serializer.make_signer(SALT)
        """That of the serializer, which makes a new one each time."""
        self._seconds = int(seconds) + LEEWAY_SECONDS
        self._clock = clock
        self._public_url = public_url

    def events_url(self, ticket: Ticket) -> str:
        """The URL that follows this turn, with its ticket in it; a path unless PUBLIC_URL is set."""
        signed = self._signer.sign(self._serializer.dump_payload(ticket)).decode()
        return f"{self._public_url}/chat-messages/{ticket.task_id}/events?ticket={signed}"

    def read(self, text: str) -> Ticket:
        """The ticket in this text; Unauthorized when it is not ours or has expired."""
        try:
            # Without `max_age`, which refuses a ticket from a clock that is a moment ahead.
            (task_id, app_id, user), signed_at = self._serializer.loads(text, return_timestamp=True)
        except BadSignature:
            raise Unauthorized("The ticket is not valid or has expired.") from None
        if signed_at.timestamp() + self._seconds < self._clock():
            raise Unauthorized("The ticket is not valid or has expired.")
        return Ticket(TaskId(task_id), AppId(app_id), user)


class FileTickets:
    """Signs the URLs of stored files. Each URL works for everybody who has it, until it expires.

    A URL is valid for `seconds` and then to the end of the day (UTC). So every process makes the same URL
    of a file all day long: the events of a turn keep their bytes, and browsers keep their caches.
    """

    def __init__(self, secret: bytes, *, seconds: float, clock: Clock, public_url: str = "") -> None:
        self._serializer = URLSafeSerializer(secret, salt=FILE_SALT)
        self._seconds = seconds
        self._clock = clock
        self._public_url = public_url

    def url(self, file_id: str) -> str:
        """The URL of a file, with its ticket in it; a path unless there is a public URL."""
        expires = math.ceil((self._clock() + self._seconds) / DAY_SECONDS) * DAY_SECONDS
        ticket = self._serializer.dumps([file_id, expires])
        return f"{self._public_url}/files/{file_id}/download?ticket={ticket}"

    def read(self, text: str) -> FileId:
        """The file that this ticket is for; Unauthorized when it is not ours or has expired."""
        try:
            file_id, expires = self._serializer.loads(text)
        except BadSignature:
            file_id, expires = "", 0
        if expires + LEEWAY_SECONDS <= self._clock():
            raise Unauthorized("The ticket is not valid or has expired.")
        return FileId(file_id)

"""Files of messages: the statements about them within a turn's transactions.

An upload is attached to the message that uses it; what an agent made gets its row with the turn's end.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec
from sqlalchemy import bindparam, delete, exists, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from agent_gateway.domain.files import InputFile, StoredFile
from agent_gateway.domain.ids import MessageId
from agent_gateway.domain.turns import Caller
from agent_gateway.errors import FileNotFound
from agent_gateway.store.db.functions import now_plus
from agent_gateway.store.db.scope import owned, scope_of
from agent_gateway.store.db.tables import conversations, files, message_files, messages
from agent_gateway.store.files import file_of, file_values

_OWNER: Final = (
    select(conversations.c.app_id, conversations.c.end_user_id, messages.c.created_at)
    .join(messages, messages.c.conversation_id == conversations.c.id)
    .where(messages.c.id == bindparam("message"))
)
_LINK: Final = (
    update(messages).where(messages.c.id == bindparam("message")).values(linked_files=bindparam("linked"))
)
_FILES_OF: Final = (
    select(files.c.id)
    .where(
        files.c.id.in_(
            select(message_files.c.file_id)
            .join(messages, messages.c.id == message_files.c.message_id)
            .where(messages.c.conversation_id == bindparam("conversation"))
        )
    )
    .order_by(files.c.id)
    .with_for_update()
)
_HIDE: Final = (
    update(files)
    .where(
        files.c.id.in_(bindparam("ids", expanding=True)),
        ~exists().where(message_files.c.file_id == files.c.id),
    )
    .values(deleted_at=now_plus())
)
_DETACH: Final = delete(message_files).where(
    message_files.c.message_id.in_(
        select(messages.c.id).where(messages.c.conversation_id == bindparam("conversation"))
    )
)


async def resolve_files(
    connection: AsyncConnection, caller: Caller, given: Sequence[InputFile]
) -> list[InputFile]:
    """The files of a query, with name, type and size; FileNotFound unless they are the caller's.

    Their rows are locked, so that none is hidden before it is attached.
    """
    ids = [file.upload_file_id for file in given if file.transfer_method == "local_file"]
    if not ids:
        return list(given)
    rows = await connection.execute(
        select(files)
        .where(files.c.id.in_(ids), owned(files))
        .order_by(files.c.id)
        .with_for_update(read=True),
        scope_of(caller.app.id, caller.user),
    )
    found = {row.id: row for row in rows}
    if not found.keys() >= set(ids):
        raise FileNotFound
    return [
        msgspec.structs.replace(file, type=row.type, name=row.name, mime_type=row.mime_type, size=row.size)
        if (row := found.get(file.upload_file_id))
        else file
        for file in given
    ]


async def attach_files(
    connection: AsyncConnection, message_id: MessageId, given: Iterable[InputFile]
) -> None:
    """Note that this message uses these uploads."""
    ids = dict.fromkeys(file.upload_file_id for file in given if file.transfer_method == "local_file")
    if ids:
        rows = [{"message_id": message_id, "file_id": file_id} for file_id in ids]
        await connection.execute(insert(message_files), rows)


async def detach_files(connection: AsyncConnection, conversation_id: str) -> None:
    """Detach the files of a deleted conversation, and hide those that no other message uses."""
    # Locked first, so that the next statements see what other messages have attached meanwhile.
    ids = list(await connection.scalars(_FILES_OF, {"conversation": conversation_id}))
    if not ids:
        return
    await connection.execute(_DETACH, {"conversation": conversation_id})
    await connection.execute(_HIDE, {"ids": ids})


async def write_artifacts(connection: AsyncConnection, message_id: str, made: Sequence[StoredFile]) -> None:
    """The rows of files that an agent made; part of the turn's last write (R7)."""
    linked = [msgspec.to_builtins(file) for file in made if file.url]
    if linked:
        await connection.execute(_LINK, {"message": message_id, "linked": linked})
    made = [file for file in made if not file.url]
    if not made:
        return
    owner = (await connection.execute(_OWNER, {"message": message_id})).one()
    await connection.execute(
        insert(files), [file_values(file, owner.app_id, owner.end_user_id, owner.created_at) for file in made]
    )
    uses = [{"message_id": message_id, "file_id": file.id, "position": file.position} for file in made]
    await connection.execute(insert(message_files), uses)


async def read_artifacts(
    session: AsyncSession, linked: Mapping[str, Sequence[Mapping[str, object]] | None]
) -> dict[str, list[StoredFile]]:
    """The files that agents made for these messages, in order, by message id.

    `linked` are the `linked_files` of each of the messages.
    """
    made = {
        message_id: msgspec.convert(found, list[StoredFile]) for message_id, found in linked.items() if found
    }
    rows = await session.execute(
        select(files, message_files.c.message_id, message_files.c.position)
        .join(message_files, message_files.c.file_id == files.c.id)
        .where(message_files.c.message_id.in_(linked), message_files.c.position.is_not(None))
        .order_by(message_files.c.message_id, message_files.c.position)
    )
    for row in rows:
        made.setdefault(row.message_id, []).append(file_of(row, row.position))
    for files_of_message in made.values():
        files_of_message.sort(key=lambda file: file.position)
    return made

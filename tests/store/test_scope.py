"""Tenancy (I11): one predicate, in one place."""

import re
from pathlib import Path

import pytest
from sqlalchemy import Table, insert, select

import agent_gateway.store
from agent_gateway.domain.ids import new_id
from agent_gateway.store.db.functions import now_plus
from agent_gateway.store.db.scope import of_app, owned, scope_of
from agent_gateway.store.db.tables import conversations, end_users, files
from tests.support.store_world import World

pytestmark = pytest.mark.anyio

STORE = Path(agent_gateway.store.__file__).parent


async def _put_rows(world: World, table: Table) -> dict[tuple[str, str, bool], str]:
    """A live and a deleted row of two users of two apps who have the same names; their ids."""
    ids: dict[tuple[str, str, bool], str] = {}
    file = {"type": "document", "size": 1}
    for app in (world.app, world.other_app):
        for user in ("ann", "ben"):
            end_user_id = new_id()
            known = {"id": end_user_id, "app_id": app.id, "external_id": user, "created_at": now_plus()}
            await world.execute(insert(end_users).values(known))
            for deleted in (False, True):
                row = {"id": new_id(), "app_id": app.id, "end_user_id": end_user_id, "created_at": now_plus()}
                row |= {"deleted_at": now_plus()} if deleted else {}
                row |= file if table is files else {"last_seq": 0, "updated_at": now_plus()}
                await world.execute(insert(table).values(row))
                ids[app.id, user, deleted] = str(row["id"])
    return ids


@pytest.mark.parametrize("table", [conversations, files], ids=lambda table: table.name)
async def test_a_caller_reaches_only_undeleted_rows_of_this_app_and_user(world: World, table: Table) -> None:
    ids = await _put_rows(world, table)
    async with world.database.reading() as session:
        # Joined: a statement that reads end users itself reaches nothing more.
        query = select(table.c.id).join(end_users, end_users.c.id == table.c.end_user_id)
        found = await session.scalars(query.where(owned(table)), scope_of(world.app.id, "ann"))
        assert found.all() == [ids[world.app.id, "ann", False]]
        nobody = await session.scalars(query.where(owned(table)), scope_of(world.app.id, "eve"))
        assert nobody.all() == []


@pytest.mark.parametrize("table", [conversations, files], ids=lambda table: table.name)
async def test_an_app_reaches_undeleted_rows_of_all_its_users(world: World, table: Table) -> None:
    ids = await _put_rows(world, table)
    async with world.database.reading() as session:
        found = await session.scalars(select(table.c.id).where(of_app(table)), {"app": world.app.id})
        assert set(found) == {ids[world.app.id, user, False] for user in ("ann", "ben")}


async def test_a_statement_without_the_callers_parameters_does_not_run(world: World) -> None:
    async with world.database.reading() as session:
        with pytest.raises(Exception, match="bind parameter 'user'"):
            await session.execute(select(conversations.c.id).where(owned(conversations)), {"app": "a"})


def test_the_predicate_is_written_once() -> None:
    compared = re.compile(r"external_id\)? *(==|!=)|external_id\)?\.(in_|is_)")
    places = [path.name for path in STORE.rglob("*.py") if compared.search(path.read_text())]
    assert places == ["scope.py"]

"""Where a text is found in all that a gateway stores: in its database, by bytes or by rows, and its files."""

from pathlib import Path

from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import AsyncSession

from tests.support.rows import look


def traces(url: str, folder: Path, word: str) -> list[str]:
    """The tables (Postgres), or the files of the database (SQLite), and the stored files that hold this."""
    found = _in_files(folder, word)
    if url.startswith("sqlite"):
        path = Path(make_url(url).database or "")
        return _in_files(path.parent, word, f"{path.name}*") + found
    return sorted(_in_tables(url, word)) + found


def _in_files(folder: Path, word: str, pattern: str = "**/*") -> list[str]:
    return sorted(
        path.name
        for path in folder.glob(pattern)
        if path.is_file() and (word in path.name or word.encode() in path.read_bytes())
    )


def _in_tables(url: str, word: str) -> set[str]:
    # Bytes are written in hexadecimal.
    forms = (word, word.encode().hex())

    async def work(session: AsyncSession) -> set[str]:
        names = await session.scalars(
            text("SELECT quote_ident(relname) FROM pg_class WHERE relkind = 'r' AND relnamespace = :schema"),
            {"schema": (await session.scalars(text("SELECT 'public'::regnamespace::oid"))).one()},
        )
        found: set[str] = set()
        for name in names:
            rows = await session.scalars(text(f"SELECT t::text FROM {name} t"))
            if any(form in row for row in rows for form in forms):
                found.add(name)
        return found

    return look(url, work)

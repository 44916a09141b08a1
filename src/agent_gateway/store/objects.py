"""The file store: objects in a local folder or a bucket. The one module that speaks to it.

Foreign errors are mapped here. Their texts can quote URLs and signatures, so only
their type and what the system says is passed on.
"""

import asyncio
import logging
import os
import re
from collections.abc import AsyncIterable, AsyncIterator, Generator, Iterable
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, ObjectStore, from_url

from agent_gateway.conditions import Condition
from agent_gateway.errors import ConfigError, ObjectError, ObjectMissing, ObjectsUnavailable

OTHERS: Final = 0o007
"""What users who are neither the owner nor in its group may do."""
PART_BYTES: Final = 5 * 1024 * 1024
"""Size of one upload request: the least that S3 takes as a part of a larger object."""
READ_BYTES: Final = 64 * 1024
ANSWER_SECONDS: Final = 30.0
"""How long the file store may take until its response begins."""
REQUEST_SECONDS: Final = 600.0
"""How long a whole response may take: a reader may be slow."""

logger = logging.getLogger(__name__)


class Objects:
    """Objects by key. Puts are atomic: nobody sees half of one, and one that fails leaves nothing."""

    def __init__(self, url: str, folder: Path) -> None:
        """Open the store that `url` names, or the local `folder` when it is empty. Raises ConfigError."""
        self._store = _open(url, folder)
        self._away = Condition(logger, "the file store is away")

    async def put(self, key: str, chunks: AsyncIterable[bytes]) -> None:
        """Store what `chunks` yields, with a few parts in memory at most.

        An error that `chunks` raises passes. Raises ObjectsUnavailable.
        """
        source = aiter(chunks)
        held = bytearray()
        async for chunk in source:
            held += chunk
            if len(held) > PART_BYTES:
                break
        else:
            await self.put_bytes(key, bytes(held))
            return

        async def everything() -> AsyncIterator[bytes]:
            yield bytes(held)
            held.clear()
            async for chunk in source:
                yield chunk

        with self._mapped():
            await obstore.put_async(self._store, key, everything(), chunk_size=PART_BYTES, max_concurrency=1)

    async def put_bytes(self, key: str, data: bytes) -> None:
        """Store these bytes. Raises ObjectsUnavailable."""
        with self._mapped():
            await obstore.put_async(self._store, key, data, chunk_size=PART_BYTES, max_concurrency=1)

    async def get(self, key: str, start: int, end: int) -> AsyncIterator[bytes]:
        """The bytes of an object from `start` up to `end`, as they are read.

        Raises ObjectMissing, ObjectsUnavailable; the latter also while the bytes are read.
        """
        if start == end:
            return _no_bytes()
        with self._mapped(ObjectMissing):
            async with asyncio.timeout(ANSWER_SECONDS):
                found = await obstore.get_async(self._store, key, options={"range": (start, end)})
        return self._read(found.stream(min_chunk_size=READ_BYTES))

    async def delete(self, keys: Iterable[str]) -> None:
        """Delete these objects; one that is not there is no error. Raises ObjectsUnavailable."""
        for key in keys:
            try:
                with self._mapped(ObjectMissing):
                    async with asyncio.timeout(ANSWER_SECONDS):
                        await obstore.delete_async(self._store, key)
            except ObjectMissing:
                pass

    async def keys(self, prefix: str, *, before: datetime) -> list[str]:
        """All keys under a prefix whose objects are older than that. Raises ObjectsUnavailable."""
        with self._mapped():
            return [
                str(found["path"])
                async for batch in obstore.list(self._store, prefix=prefix)
                for found in batch
                if found["last_modified"] < before
            ]

    async def _read(self, stream: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
        with self._mapped():
            async for chunk in stream:
                yield bytes(chunk)

    @contextmanager
    def _mapped(self, missing: type[ObjectError] = ObjectsUnavailable) -> Generator[None]:
        """Foreign errors become ours; `missing` is the error for an object that does not exist."""
        try:
            yield
        except FileNotFoundError:
            raise missing("not there") from None
        except (BaseError, OSError, TimeoutError) as error:
            mapped = ObjectsUnavailable(_reason(error))
            self._away.met(mapped)
            raise mapped from None
        else:
            self._away.passed()


def _reason(error: Exception) -> str:
    """The kind of error, and what the system says of it; other texts may hold a key or a name."""
    # The local store has the error of the system only in its text.
    found = re.search(r"\(os error (\d+)\)", str(error))
    code = int(found[1]) if found else getattr(error, "errno", None)
    return f"{type(error).__name__} {os.strerror(code)}" if code else type(error).__name__


def keep_others_out(folder: Path) -> None:
    """Let no other user into a folder of files, which an earlier version may have made for everybody."""
    try:
        mode = folder.stat().st_mode & 0o777
        if mode & OTHERS:
            folder.chmod(mode & ~OTHERS)
    except OSError as error:
        # Somebody else's folder, or a file system without modes: an operator has chosen it.
        logger.warning("others may read %s: its mode cannot be set (%s)", folder, error.strerror)


def object_key(created_at: datetime, file_id: str) -> str:
    """Where a file's bytes are. The day comes first, so that bytes without a row can be found."""
    return f"{day_prefix(created_at)}/{file_id}"


def day_prefix(time: datetime) -> str:
    """The prefix of the keys of all files of that day."""
    return time.astimezone(UTC).strftime("%Y/%m/%d")


def local_folder(url: str, folder: Path) -> Path | None:
    """The folder of the file store that `url` names, or `folder` when it is empty; None for a bucket."""
    parts = urlsplit(url)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    return None if url else folder


async def _no_bytes() -> AsyncIterator[bytes]:
    return
    yield b""


def _open(url: str, folder: Path) -> ObjectStore:
    parts = urlsplit(url)
    try:
        if local := local_folder(url, folder):
            return LocalStore(local, mkdir=True)
        options: dict[str, Any] = dict(parse_qsl(parts.query, keep_blank_values=True))
        client: dict[str, Any] = {
            "timeout": timedelta(seconds=REQUEST_SECONDS),
            "connect_timeout": timedelta(seconds=5),
            # Only when the URL says so: for a store of one's own, on a network of one's own.
            "allow_http": options.pop("allow_http", "") == "true"
            or str(options.get("endpoint", "")).startswith("http://"),
        }
        retries: Any = {"max_retries": 3, "retry_timeout": timedelta(seconds=20)}
        if parts.scheme in ("http", "https") and not _is_bucket(parts.hostname or ""):
            raise ConfigError("AGENT_GATEWAY_FILES_URL: a plain web server cannot keep files.")
        # The overloads are for three clouds; which one it is, only the URL says.
        open_any: Any = from_url
        bare = urlunsplit(parts._replace(query=""))
        opened: ObjectStore = open_any(bare, config=options, client_options=client, retry_config=retries)
        return opened
    except (BaseError, OSError, ValueError) as error:
        if not url:
            raise ConfigError(f"the folder {folder.absolute()} cannot be made or used for files.") from None
        # Without the text of the error: the URL may hold a key.
        raise ConfigError(
            f"AGENT_GATEWAY_FILES_URL cannot be used ({type(error).__name__}): write file:///folder, "
            "s3://bucket/prefix, gs://bucket/prefix or az://container/prefix; options after a `?`."
        ) from None


def _is_bucket(host: str) -> bool:
    known = ("amazonaws.com", "r2.cloudflarestorage.com", "core.windows.net", "fabric.microsoft.com")
    return host.endswith(known)

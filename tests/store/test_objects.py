"""The file store, in a folder and in a bucket of an S3-compatible server."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from agent_gateway.errors import ConfigError, ObjectMissing, ObjectsUnavailable
from agent_gateway.store.objects import Objects, day_prefix, object_key
from tests.support.gateway_server import wait_until
from tests.support.ports import hold_port

pytestmark = pytest.mark.anyio

MB = 1024 * 1024
LATER = datetime(2100, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The address of an S3 server with a bucket named `bucket`."""
    environ = {**os.environ, "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y"}
    with hold_port() as held:
        port = held.getsockname()[1]
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        url = f"http://127.0.0.1:{port}"
        process = subprocess.Popen(command, env=environ, stderr=subprocess.DEVNULL)
        try:
            with httpx.Client(trust_env=False) as client:

                def made() -> bool:
                    try:
                        return client.put(f"{url}/bucket").status_code == 200
                    except httpx.TransportError:
                        return False

                wait_until(made, 60)
            yield url
        finally:
            process.kill()
            process.wait()


@pytest.fixture(params=["folder", "s3"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> Objects:
    if request.param == "folder":
        return Objects("", tmp_path / "files")
    url = request.getfixturevalue("s3_server")
    options = f"endpoint={url}&region=us-east-1&access_key_id=x&secret_access_key=y"
    return Objects(f"s3://bucket/{tmp_path.name}?{options}", tmp_path / "unused")


async def chunks(megabytes: int, failure: Exception | None = None) -> AsyncIterator[bytes]:
    for number in range(megabytes):
        yield bytes([number]) * MB
    if failure is not None:
        raise failure


async def read(objects: Objects, key: str, start: int, end: int) -> bytes:
    return b"".join([chunk async for chunk in await objects.get(key, start, end)])


@pytest.mark.parametrize("megabytes", [0, 1, 5, 6, 23])
async def test_an_object_is_read_back_as_written(objects: Objects, megabytes: int) -> None:
    await objects.put("2026/01/02/a", chunks(megabytes))
    whole = b"".join([chunk async for chunk in chunks(megabytes)])
    assert await read(objects, "2026/01/02/a", 0, len(whole)) == whole
    if whole:
        assert await read(objects, "2026/01/02/a", len(whole) - 10, len(whole)) == whole[-10:]
    assert await objects.keys("2026/01/02", before=LATER) == ["2026/01/02/a"]


@pytest.mark.parametrize("megabytes", [1, 23])
async def test_a_failed_put_leaves_nothing(objects: Objects, megabytes: int, tmp_path: Path) -> None:
    """The chunks' own error comes through as it is."""
    with pytest.raises(KeyError, match="mine"):
        await objects.put("2026/01/02/a", chunks(megabytes, KeyError("mine")))
    assert await objects.keys("2026/01/02", before=LATER) == []
    assert [path for path in (tmp_path / "files").rglob("*") if path.is_file()] == []


async def test_putting_an_object_again_replaces_it(objects: Objects) -> None:
    for _ in range(2):
        await objects.put_bytes("2026/01/02/a", b"image")
    assert await objects.keys("2026/01/02", before=LATER) == ["2026/01/02/a"]
    assert await read(objects, "2026/01/02/a", 1, 3) == b"ma"


async def test_a_deleted_object_is_missing(objects: Objects) -> None:
    await objects.put_bytes("2026/01/02/a", b"x")
    await objects.delete(["2026/01/02/a", "2026/01/02/a", "never/was"])
    with pytest.raises(ObjectMissing):
        await objects.get("2026/01/02/a", 0, 1)
    assert await objects.keys("2026/01/02", before=LATER) == []


async def test_only_old_keys_of_a_day_are_listed(objects: Objects) -> None:
    now = datetime.now(UTC)
    key = object_key(now, "some-id")
    await objects.put_bytes(key, b"x")
    assert key == f"{day_prefix(now)}/some-id"
    assert await objects.keys(day_prefix(now), before=now + timedelta(days=1)) == [key]
    assert await objects.keys(day_prefix(now), before=now - timedelta(days=1)) == []
    assert await objects.keys(day_prefix(now - timedelta(days=1)), before=LATER) == []


async def test_an_unreachable_store_is_unavailable(tmp_path: Path, unused_port: int) -> None:
    options = (
        f"endpoint=http://127.0.0.1:{unused_port}&region=us-east-1&access_key_id=x&secret_access_key=sss"
    )
    away = Objects(f"s3://bucket/x?{options}", tmp_path)
    with pytest.raises(ObjectsUnavailable) as failed:
        await away.put_bytes("2026/01/02/a", b"x")
    assert "sss" not in str(failed.value)
    assert failed.value.__cause__ is None


@pytest.mark.parametrize(
    "url",
    ["ftp://x/y", "s3://", "http://x.test/y", "nonsense", "s3://b?no_such_option=1", "az://container/x"],
)
async def test_an_unusable_url_is_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="AGENT_GATEWAY_FILES_URL"):
        Objects(url, tmp_path)


async def test_a_folder_can_be_given_as_url(tmp_path: Path) -> None:
    folder = tmp_path / "with space"
    await Objects(folder.as_uri(), tmp_path / "unused").put_bytes("a/b", b"x")
    assert (folder / "a" / "b").read_bytes() == b"x"

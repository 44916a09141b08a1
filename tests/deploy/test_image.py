"""The Dockerfile: who the gateway is in a container, and what says that it is alive. CI runs the image."""

from tests.support.paths import ROOT


def instructions() -> list[tuple[str, str]]:
    """The instructions of the last stage, in order."""
    lines = (ROOT / "Dockerfile").read_text().replace("\\\n", "").splitlines()
    found = [tuple(line.split(" ", 1)) for line in lines if line and not line.startswith("#")]
    last = max(index for index, (name, _) in enumerate(found) if name == "FROM")
    return [(name, value) for name, value in found[last:]]


def the_only(name: str) -> str:
    [value] = [value for given, value in instructions() if given == name]
    return value


def test_the_gateway_is_not_root_and_its_data_are_its_own() -> None:
    user, group = the_only("USER").split(":")
    assert 0 not in (int(user), int(group)), "a number: Kubernetes cannot tell who a name is"
    names = [name for name, _ in instructions()]
    assert names.index("USER") > max(index for index, name in enumerate(names) if name in ("RUN", "COPY"))
    assert the_only("RUN") == f"install -d -m 0750 -o {user} -g {group} {the_only('VOLUME')}"
    assert f"AGENT_GATEWAY_DATA_DIR={the_only('VOLUME')}" in the_only("ENV")


def test_the_image_says_when_it_is_alive_and_stops_with_a_drain() -> None:
    assert the_only("HEALTHCHECK").endswith('CMD ["agent-gateway", "health"]')
    assert the_only("STOPSIGNAL") == "SIGTERM"
    assert the_only("ENTRYPOINT") == '["agent-gateway"]', "no shell in between, which would keep the signal"

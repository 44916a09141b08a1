"""The compose file starts the gateway on a migrated database, hardened, with time to drain."""

from typing import Any

import yaml

from tests.support.paths import ROOT


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())
    return loaded


def test_the_gateway_waits_for_a_healthy_and_migrated_database() -> None:
    services = compose()["services"]
    assert services.keys() == {"gateway", "migrate", "postgres"}
    assert "pg_isready" in services["postgres"]["healthcheck"]["test"]
    assert services["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    assert services["migrate"]["command"] == ["migrate"]
    assert services["gateway"]["depends_on"] == {"migrate": {"condition": "service_completed_successfully"}}


def test_the_gateway_is_hardened_and_may_drain() -> None:
    services = compose()["services"]
    for service in (services["gateway"], services["migrate"]):
        assert service["read_only"] is True
        assert service["tmpfs"] == ["/tmp"]
        assert service["cap_drop"] == ["ALL"]
        for secret in ("AGENT_GATEWAY_SECRET_KEY", "AGENT_GATEWAY_API_KEY"):
            assert service["environment"][secret].startswith(f"${{{secret}:?"), "has no default"
    gateway = services["gateway"]
    assert (
        int(gateway["stop_grace_period"].removesuffix("s"))
        > gateway["environment"]["AGENT_GATEWAY_DRAIN_SECONDS"]
    )
    assert "data:/data" in gateway["volumes"]
    assert all(":" in service["image"] for service in services.values() if "build" not in service)
    assert all(port.startswith("127.0.0.1:") for port in services["postgres"]["ports"])

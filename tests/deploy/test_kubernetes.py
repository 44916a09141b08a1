"""The Kubernetes manifests: valid in all versions they are for, hardened, and true about the gateway."""

import re
from pathlib import Path
from typing import Any, Final

import kubernetes_validate
import pytest
import yaml

from agent_gateway.errors import ConfigError
from agent_gateway.settings import Settings
from tests.support.paths import ROOT
from tests.support.proxies import DEPLOY

FOLDER: Final = DEPLOY / "kubernetes"
VERSIONS: Final = [f"1.{minor}" for minor in range(30, 38)]
"""From the first that knows `sleep` in `preStop`, to the newest that the validator has."""
KINDS: Final = ["ConfigMap", "Deployment", "Ingress", "Job", "PodDisruptionBudget", "Secret", "Service"]

Manifest = dict[str, Any]


def manifests() -> dict[str, Manifest]:
    """All manifests that the kustomization names, by their kind."""
    listed = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["resources"]
    read = [yaml.safe_load((FOLDER / name).read_text()) for name in listed]
    return {manifest["kind"]: manifest for manifest in read}


def pod(kind: str) -> Manifest:
    found: Manifest = manifests()[kind]["spec"]["template"]["spec"]
    return found


def container(kind: str) -> Manifest:
    [found] = pod(kind)["containers"]
    only: Manifest = found
    return only


@pytest.mark.parametrize("kind", KINDS)
def test_a_manifest_is_valid(kind: str) -> None:
    for version in VERSIONS:
        kubernetes_validate.validate(manifests()[kind], version, strict=True)


def test_a_wrong_key_is_found() -> None:
    wrong = manifests()["Service"] | {"specs": {}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[0], strict=True)


def test_the_kustomization_names_every_file() -> None:
    kustomization = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
    files = {path.name for path in FOLDER.glob("*.yaml")} - {"kustomization.yaml"}
    assert set(kustomization["resources"]) == files
    assert sorted(manifests()) == KINDS
    [image] = kustomization["images"]
    assert {container(kind)["image"] for kind in ("Deployment", "Job")} == {image["name"]}


def test_what_refers_to_pods_finds_them() -> None:
    found = manifests()
    labels = found["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert found["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert found["Service"]["spec"]["selector"] == labels
    assert found["Job"]["spec"]["template"]["metadata"]["labels"] != labels, "no requests go to the migration"
    [rule] = found["Ingress"]["spec"]["rules"]
    [path] = rule["http"]["paths"]
    [port] = found["Service"]["spec"]["ports"]
    assert path["backend"]["service"] == {
        "name": found["Service"]["metadata"]["name"],
        "port": {"name": port["name"]},
    }
    [own] = container("Deployment")["ports"]
    assert own == {"name": port["targetPort"], "containerPort": Settings.model_fields["port"].default}
    for kind in ("Deployment", "Job"):
        names = {kind: found[kind]["metadata"]["name"] for kind in ("ConfigMap", "Secret")}
        assert container(kind)["envFrom"] == [
            {"configMapRef": {"name": names["ConfigMap"]}},
            {"secretRef": {"name": names["Secret"]}},
        ]


@pytest.mark.parametrize("kind", ["Deployment", "Job"])
def test_pods_may_do_nothing_that_they_need_not(kind: str) -> None:
    spec, only = pod(kind), container(kind)
    user = int(re.findall(r"USER (\d+):(\d+)", (ROOT / "Dockerfile").read_text())[0][0])
    assert spec["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": user,
        "runAsGroup": user,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert only["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert spec["volumes"] == [{"name": "tmp", "emptyDir": {}}]
    assert only["volumeMounts"] == [{"name": "tmp", "mountPath": "/tmp"}]
    assert spec["automountServiceAccountToken"] is False
    assert "memory" in only["resources"]["limits"]


def test_probes_and_time_to_drain() -> None:
    found, only = manifests(), container("Deployment")
    for probe, path in {
        "startupProbe": "/healthz",
        "livenessProbe": "/healthz",
        "readinessProbe": "/readyz",
    }.items():
        assert only[probe]["httpGet"] == {"path": path, "port": "http"}
    drain = float(found["ConfigMap"]["data"]["AGENT_GATEWAY_DRAIN_SECONDS"])
    before = only["lifecycle"]["preStop"]["sleep"]["seconds"]
    probe = only["readinessProbe"]
    assert before > probe["periodSeconds"] * probe["failureThreshold"]
    assert pod("Deployment")["terminationGracePeriodSeconds"] >= before + drain + 10
    deployment = found["Deployment"]["spec"]
    assert deployment["replicas"] >= 2
    assert deployment["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert found["PodDisruptionBudget"]["spec"]["maxUnavailable"] < deployment["replicas"]
    assert container("Job")["args"] == ["migrate"]


def test_the_settings_are_right_and_the_examples_secrets_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    found = manifests()
    for name, value in {**found["ConfigMap"]["data"], **found["Secret"]["stringData"]}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="SECRET_KEY is too short"):
        Settings.read().given_secret_key()
    monkeypatch.setenv("AGENT_GATEWAY_SECRET_KEY", "s" * 32)
    settings = Settings.read()
    assert settings.given_secret_key() == b"s" * 32
    assert not settings.embedded_database
    assert settings.files_url.startswith("s3://"), "pods share no folder"


def test_the_ingress_says_the_same_as_the_example_for_nginx() -> None:
    text = (DEPLOY / "nginx/agent-gateway-proxy.conf").read_text()
    of_nginx = dict(re.findall(r"^    (\w+) ([^;]+);", text, re.MULTILINE))
    of_nginx["proxy_body_size"] = of_nginx["client_max_body_size"]
    prefix = "nginx.ingress.kubernetes.io/"
    annotations = manifests()["Ingress"]["metadata"]["annotations"]
    assert len(annotations) == 8
    for name, value in annotations.items():
        same = of_nginx[name.removeprefix(prefix).replace("-", "_")]
        assert value == (same.removesuffix("s") if same[0].isdigit() else same), name

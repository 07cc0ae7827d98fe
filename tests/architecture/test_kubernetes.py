"""deploy/kubernetes against the code: names, paths, metrics, and times; kubectl renders it where it is installed."""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from api import server
from core.settings import Settings
from tests.architecture.test_compose import defaulted

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "kubernetes"
OVERLAYS = ("base", "gpu")
MOUNTED = "/run/secrets/longlook/"
#: What each process needs, and what no other one is given.
SECRETS = {
    "migrate": {"database_url"},
    "api": {"database_url", "redis_url", "pepper", "vault_key", "outbound_proxy"},
    "worker": {"database_url", "redis_url", "engine_api_key"},
    "delivery": {"database_url", "redis_url", "vault_key", "outbound_proxy"},
    "engine": {"engine_api_key"},
}

_COUNT = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}
#: The fields of a ScaledObject with a trigger of type ``prometheus``. KEDA ignores unknown ones.
SCALED_OBJECT = {
    "type": "object",
    "additionalProperties": False,
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "properties": {
        "apiVersion": {"const": "keda.sh/v1alpha1"},
        "kind": {"const": "ScaledObject"},
        "metadata": {"type": "object", "required": ["name"]},
        "spec": {
            "type": "object",
            "additionalProperties": False,
            "required": ["scaleTargetRef", "triggers"],
            "properties": {
                "scaleTargetRef": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["name"],
                    "properties": {
                        name: {"type": "string", "minLength": 1}
                        for name in ("name", "kind", "apiVersion", "envSourceContainerName")
                    },
                },
                "pollingInterval": _COUNT,
                "initialCooldownPeriod": _COUNT,
                "cooldownPeriod": _COUNT,
                "idleReplicaCount": _COUNT,
                "minReplicaCount": _COUNT,
                "maxReplicaCount": _COUNT,
                "triggers": {
                    "type": "array",
                    "minItems": 1,
                    "items": {
                        "type": "object",
                        "additionalProperties": False,
                        "required": ["type", "metadata"],
                        "properties": {
                            "type": {"const": "prometheus"},
                            "name": {"type": "string"},
                            "metricType": {"enum": ["AverageValue", "Value"]},
                            "useCachedMetrics": {"type": "boolean"},
                            "authenticationRef": {"type": "object", "required": ["name"]},
                            "metadata": {
                                "type": "object",
                                "additionalProperties": False,
                                "required": ["serverAddress", "query", "threshold"],
                                "properties": {
                                    "serverAddress": {"type": "string", "pattern": "^https?://."},
                                    "query": {"type": "string", "minLength": 1},
                                    # All values are strings.
                                    "threshold": {
                                        "type": "string",
                                        "pattern": r"^[0-9]+(\.[0-9]+)?$",
                                    },
                                    "activationThreshold": {"type": "string"},
                                    "namespace": {"type": "string"},
                                    "customHeaders": {"type": "string"},
                                    "ignoreNullValues": {"enum": ["true", "false"]},
                                    "unsafeSsl": {"enum": ["true", "false"]},
                                    "authModes": {"type": "string"},
                                    "timeout": {"type": "string"},
                                },
                            },
                        },
                    },
                },
            },
        },
    },
}


def resources(overlay: str) -> list[dict[str, Any]]:
    """Return the resources of the files that a kustomization lists, those of its bases included."""
    folder = FOLDER / overlay
    listed: list[dict[str, Any]] = []
    for name in kustomization(overlay)["resources"]:
        if name.startswith("../"):
            listed += resources(name.removeprefix("../"))
        else:
            listed += yaml.safe_load_all((folder / name).read_text())
    return listed


def kustomization(overlay: str) -> dict[str, Any]:
    """Return the kustomization of an overlay."""
    content: dict[str, Any] = yaml.safe_load((FOLDER / overlay / "kustomization.yaml").read_text())
    return content


def of_kind(kind: str) -> dict[str, Any]:
    """Return the resources of a kind, by name."""
    return {one["metadata"]["name"]: one for one in resources("gpu") if one["kind"] == kind}


def pods() -> dict[str, Any]:
    """Return the pod of each workload, by its component."""
    workloads = of_kind("Deployment") | of_kind("Job")
    return {name: workload["spec"]["template"] for name, workload in workloads.items()}


def container(name: str) -> dict[str, Any]:
    """Return the only container of a component."""
    [only] = pods()[name]["spec"]["containers"]
    return dict(only)


def variables(name: str) -> dict[str, str]:
    """Return the environment of a component, as far as it is in its container."""
    return {entry["name"]: entry["value"] for entry in container(name)["env"]}


def literals(overlay: str) -> dict[str, str]:
    """Return the settings of the generated ConfigMap."""
    [generator] = kustomization(overlay)["configMapGenerator"]
    return dict(literal.split("=", 1) for literal in generator["literals"])


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    values = {
        "database_url": "postgresql://db/longlook",
        "redis_url": "redis://redis:6379/0",
        # As `make secrets` makes it.
        "outbound_proxy": "\n",
    }
    for name in set().union(*SECRETS.values()):
        (tmp_path / name).write_text(values.get(name, f"the {name}"))
    return tmp_path


@pytest.mark.parametrize("name", [name for name in SECRETS if name != "engine"])
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_variable_is_a_setting(secrets: Path, overlay: str, name: str) -> None:
    environment = literals("base") | literals(overlay) | variables(name)
    given = {key: value.replace(MOUNTED, f"{secrets}/") for key, value in environment.items()}

    settings = Settings.read(given)

    assert settings.database == "postgresql://db/longlook"
    assert settings.engine_urls == ("http://engine:30000",)
    assert container(name)["envFrom"] == [{"configMapRef": {"name": "longlook-settings"}}]
    # A Service with the name of the product would set variables that are no settings.
    assert pods()[name]["spec"]["enableServiceLinks"] is False


def test_each_process_has_the_secrets_that_it_needs_and_no_other_one() -> None:
    for name, pod in pods().items():
        [mounted] = [one["secret"] for one in pod["spec"]["volumes"] if "secret" in one]
        read = set(re.findall(rf"{MOUNTED}(\w+)", yaml.safe_dump(container(name))))
        assert {item["key"] for item in mounted["items"]} == read == SECRETS[name]
        assert mounted["secretName"] == "longlook"


def test_selectors_match_the_labels_of_one_component() -> None:
    labels = {name: pod["metadata"]["labels"] for name, pod in pods().items()}

    def selected(match: dict[str, str]) -> list[str]:
        return [name for name, given in labels.items() if match.items() <= given.items()]

    for name, one in of_kind("Deployment").items():
        assert selected(one["spec"]["selector"]["matchLabels"]) == [name]
    for name, one in of_kind("Service").items():
        assert selected(one["spec"]["selector"]) == [name]
        [port] = one["spec"]["ports"]
        ports = {entry["name"]: entry["containerPort"] for entry in container(name)["ports"]}
        assert ports[port["targetPort"]] == port["port"]
    for name, one in of_kind("PodDisruptionBudget").items():
        assert selected(one["spec"]["selector"]["matchLabels"]) == [name]
    assert set(of_kind("PodDisruptionBudget")) == {"api", "worker", "delivery"}
    guarded = set()
    for one in of_kind("NetworkPolicy").values():
        selector = one["spec"]["podSelector"]
        for rule in selector.get("matchExpressions", ()):
            guarded |= set(rule["values"])
        guarded |= set(selected(selector["matchLabels"])) if "matchLabels" in selector else set()
    assert guarded == set(labels)


def test_probes_ask_for_paths_that_exist() -> None:
    paths = json.loads((ROOT / "openapi.json").read_text())["paths"]
    probes = {
        name: {
            kind: one["httpGet"] for kind, one in container(name).items() if kind.endswith("Probe")
        }
        for name in ("api", "worker", "delivery")
    }

    assert probes["api"]["livenessProbe"]["path"] == "/livez"
    assert probes["api"]["readinessProbe"]["path"] == "/readyz"
    for name, of_container in probes.items():
        ports = {entry["name"] for entry in container(name)["ports"]}
        for probe in of_container.values():
            assert probe["path"] in paths
            assert probe["port"] in ports
    for name in ("worker", "delivery"):
        assert variables(name)["LONGLOOK_METRICS_PORT"] == "9700"


def test_each_process_has_the_time_to_end() -> None:
    grace = {name: pod["spec"].get("terminationGracePeriodSeconds") for name, pod in pods().items()}
    drain = float(literals("base")["LONGLOOK_DRAIN_SECONDS"])
    [_, before] = container("api")["lifecycle"]["preStop"]["exec"]["command"]

    assert grace["api"] >= int(before) + server.graceful_timeout + 15
    assert grace["worker"] >= drain + 30
    assert grace["delivery"] >= Settings.read({}).webhook_seconds + 30


def test_every_process_is_confined_and_limited() -> None:
    for name, pod in pods().items():
        spec, of_container = pod["spec"]["securityContext"], container(name)
        assert spec["runAsNonRoot"] is True
        assert spec["runAsUser"] > 0
        assert spec["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["spec"]["automountServiceAccountToken"] is False
        own = of_container["securityContext"]
        assert own["allowPrivilegeEscalation"] is False
        assert own["capabilities"] == {"drop": ["ALL"]}
        assert own.get("readOnlyRootFilesystem", False) == (name != "engine")
        assert of_container["resources"]["requests"].keys() >= {"cpu", "memory"}
        assert "memory" in of_container["resources"]["limits"]
        named = {volume["name"] for volume in pod["spec"]["volumes"]}
        assert {mount["name"] for mount in of_container["volumeMounts"]} == named


def test_commands_and_the_engine_are_those_of_compose() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    for name in pods():
        assert container(name)["command"] == [defaulted(part) for part in services[name]["command"]]
    engine = services["engine"]
    assert container("engine")["image"] == defaulted(engine["image"])
    expected = {
        key: value for key, value in engine["environment"].items() if not key.endswith("_FILE")
    }
    assert expected.items() <= variables("engine").items()
    gpus = container("engine")["resources"]["limits"]["nvidia.com/gpu"]
    flags = container("engine")["command"]
    assert flags[flags.index("--tp") + 1] == str(gpus)


def test_workers_are_scaled_by_metrics_that_exist() -> None:
    page = (ROOT / "docs" / "reference" / "metrics.md").read_text()
    known = {
        name: set(re.findall(r"`(\w+)`", labels))
        for name, labels in re.findall(
            r"^\| `(longlook_\w+)` \| \w+ \| ([^|]*)\|", page, re.MULTILINE
        )
    }
    [scaled] = of_kind("ScaledObject").values()

    assert scaled["spec"]["scaleTargetRef"]["name"] in of_kind("Deployment")
    [trigger] = scaled["spec"]["triggers"]
    named = re.findall(r"(longlook_\w+)(?:\{(\w+)=)?", trigger["metadata"]["query"])
    assert {name for name, _ in named} == {"longlook_queue_depth", "longlook_jobs_running"}
    for name, label in named:
        assert label in {"", *known[name]}
    assert int(trigger["metadata"]["threshold"]) == Settings.read({}).worker_slots


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "scaleTargetRef"), {}),
        (("spec", "minReplicas"), 1),
        (("spec", "cooldownPeriod"), "300"),
        (("spec", "triggers"), []),
        (("spec", "triggers", 0, "metadata", "threshold"), 64),
        (("spec", "triggers", 0, "metadata", "treshold"), "64"),
        (("spec", "triggers", 0, "metadata", "serverAddress"), "prometheus:9090"),
    ],
)
def test_keda_accepts_the_scaling_and_its_schema_notices_a_mistake(
    path: tuple[str | int, ...], value: object
) -> None:
    """The resource definition of KEDA checks the types; what a trigger of Prometheus has, only KEDA itself."""
    [scaled] = of_kind("ScaledObject").values()
    jsonschema.validate(scaled, SCALED_OBJECT)
    assert scaled["spec"]["minReplicaCount"] <= scaled["spec"]["maxReplicaCount"]

    broken = copy.deepcopy(scaled)
    inner = broken
    for part in path[:-1]:
        inner = inner[part]
    inner[path[-1]] = value

    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, SCALED_OBJECT)


def test_the_schemas_of_kubernetes_accept_it() -> None:
    program = ROOT / ".venv-kubernetes" / "bin" / "kubernetes-validate"
    if not program.exists():
        pytest.skip("kubernetes-validate is not installed in .venv-kubernetes; .ci/run does it")
    files = [path for path in FOLDER.glob("*/*.yaml") if path.name != "kustomization.yaml"]

    validated = subprocess.run(
        [program, "--strict", *files], capture_output=True, text=True, check=False
    )

    output = validated.stdout + validated.stderr
    assert validated.returncode == 0, output
    assert output.count(" passed for resource ") == len(resources("gpu")) - 1, output


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kubectl_renders_it(overlay: str) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed; the files are checked by the tests above")
    rendered = subprocess.run(
        ["kubectl", "kustomize", FOLDER / overlay], capture_output=True, text=True, check=False
    )
    assert rendered.returncode == 0, rendered.stderr

    found = list(yaml.safe_load_all(rendered.stdout))
    assert len(found) == len(resources(overlay)) + 1
    assert all(one["metadata"]["namespace"] == "longlook" for one in found)
    [settings] = [one for one in found if one["kind"] == "ConfigMap"]
    assert settings["data"] == literals("base") | literals(overlay)

#!/usr/bin/env python3
"""Reads what deploy/ has for Kubernetes and Compose against the schemas of both, and asks whether the parts fit each other; by
scripts/deploy-check, which says where Compose's schema is.

Schemas know neither names that one file has from another nor the Prometheus operator's kinds: those are asked for by hand.
"""

import json
import pathlib
import sys

import jsonschema
import kubernetes_validate
import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent
KUBERNETES = ROOT / "deploy/kubernetes"
COMPOSE_FILES = ("compose.yaml", "deploy/compose/compose.yaml")
# The oldest that is still maintained somewhere, and the newest that the package knows.
VERSIONS = ("1.27", "1.33")


def documents(path):
    return [document for document in yaml.safe_load_all(path.read_text(encoding="utf-8")) if document]


def resources(kustomization):
    """The resources of a kustomization, those of its bases among them, and the names of the ConfigMaps that it makes."""
    directory = kustomization.parent
    [made] = documents(kustomization)
    found, generated = [], [item["name"] for item in made.get("configMapGenerator", [])]
    for item in made.get("configMapGenerator", []):
        missing = [name for name in item["files"] if not (directory / name).is_file()]
        assert not missing, f"{kustomization}: no {missing}"
    for name in made["resources"]:
        path = directory / name
        if path.is_dir():
            more, names = resources(path / "kustomization.yaml")
            found, generated = found + more, generated + names
        else:
            found += documents(path)
    return found, generated


def one(found, kind, name="holdline"):
    [item] = [item for item in found if item["kind"] == kind and item["metadata"]["name"] == name]
    return item


def is_part_of(selector, labels):
    return bool(selector) and selector.items() <= labels.items()


def check_fit(found, generated):
    """Names and labels that one resource has from another."""
    deployment = one(found, "Deployment")["spec"]
    pod, labels = deployment["template"]["spec"], deployment["template"]["metadata"]["labels"]
    [container] = pod["containers"]
    ports = {port["name"] for port in container["ports"]}
    assert is_part_of(deployment["selector"]["matchLabels"], labels), "the Deployment does not select its pods"
    assert is_part_of(one(found, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"], labels), "nor does the budget"
    for name in ("holdline", "holdline-admin"):
        service = one(found, "Service", name)["spec"]
        assert is_part_of(service["selector"], labels), f"{name} selects no pods"
        assert {port["targetPort"] for port in service["ports"]} <= ports, f"{name} leads to a port that no pod has"
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["port"] in ports, probe
    assert container["livenessProbe"]["httpGet"]["path"] == "/health/live", "a proxy that is not ready is not dead"
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert mounted == volumes.keys(), (mounted, volumes.keys())
    assert volumes["config"]["configMap"]["name"] in generated, "the pods' ConfigMap is made by no kustomization"
    assert "0.0.0.0:9000" in (KUBERNETES / "base/proxy.toml").read_text(encoding="utf-8"), "the kubelet cannot ask"


def check_monitor(found):
    monitor = one(found, "ServiceMonitor")
    assert monitor["apiVersion"] == "monitoring.coreos.com/v1"
    spec, service = monitor["spec"], one(found, "Service", "holdline-admin")
    labels = service["metadata"]["labels"]
    assert is_part_of(spec["selector"]["matchLabels"], labels), "the ServiceMonitor selects no Service"
    assert labels[spec["jobLabel"]] == "holdline", "the alert rules ask for a job of this name"
    [endpoint] = spec["endpoints"]
    assert endpoint["path"] == "/metrics" and endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}


def check_kubernetes():
    found, generated = resources(KUBERNETES / "monitoring/kustomization.yaml")
    known = [item for item in found if item["kind"] != "ServiceMonitor"]
    for version in VERSIONS:
        for item in known:
            kubernetes_validate.validate(item, version, strict=True)
    check_fit(found, generated)
    check_monitor(found)
    kinds = ", ".join(sorted(item["kind"] for item in found))
    print(f"Kubernetes {' and '.join(VERSIONS)}: {kinds}")


def check_compose(schema):
    for name in COMPOSE_FILES:
        path = ROOT / name
        [file] = documents(path)
        jsonschema.validate(file, schema)
        for service, about in file["services"].items():
            for volume in about.get("volumes", []):
                source = path.parent / volume.split(":")[0]
                assert source.exists(), f"{name}: {service} mounts {source}, which is not there"
            public = [port for port in about.get("ports", []) if not port.startswith("127.0.0.1:")]
            assert not public, f"{name}: {service} publishes {public} beyond loopback"
        print(f"{name}: {', '.join(file['services'])}")


def main(schema):
    try:
        check_kubernetes()
        check_compose(json.loads(pathlib.Path(schema).read_text(encoding="utf-8")))
    except (AssertionError, ValueError, KeyError, jsonschema.ValidationError, kubernetes_validate.ValidationError) as error:
        print(f"deploy-yaml: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

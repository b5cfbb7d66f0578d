"""Renders the overlays and components as `kubectl kustomize` does, and looks things up in what comes out."""

import copy
import functools
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
K8S = REPOSITORY / "k8s"
SERVICE = "daisi-cdc-consumer"
OVERLAYS = sorted(path.name for path in (K8S / "overlays").iterdir())
COMPONENTS = sorted(path.name for path in (K8S / "components").iterdir())


def kubectl():
    """The program, from .tools or the path; None if there is none."""
    own = REPOSITORY / ".tools/venv/bin/kubectl"
    return str(own) if own.exists() else shutil.which("kubectl")


@functools.cache
def _render(directory):
    done = subprocess.run([kubectl(), "kustomize", directory], capture_output=True, text=True, timeout=60)
    if done.returncode != 0 or done.stderr:
        raise AssertionError(f"kubectl kustomize {directory}: {done.stderr}")
    return list(yaml.safe_load_all(done.stdout))


def render(directory):
    """The objects of a directory with a kustomization, such as `overlays/dev`; yours to change."""
    return copy.deepcopy(_render(str(K8S / directory)))


@functools.cache
def _render_with(directory, components):
    with tempfile.TemporaryDirectory() as name:
        copied = Path(name) / "k8s"
        shutil.copytree(K8S, copied)
        file = copied / directory / "kustomization.yaml"
        kustomization = yaml.safe_load(file.read_text())
        relative = [os.path.relpath(copied / "components" / component, file.parent) for component in components]
        kustomization["components"] = kustomization.get("components", []) + relative
        file.write_text(yaml.safe_dump(kustomization))
        return _render(str(file.parent))


def render_with(directory, *components):
    """The objects of a directory with more components in its kustomization."""
    return copy.deepcopy(_render_with(directory, components))


def render_above(directory, patch, *components):
    """The objects of an overlay above a directory's: a patch of the Deployment comes first, then the components."""
    with tempfile.TemporaryDirectory() as name:
        copied = Path(name) / "k8s"
        shutil.copytree(K8S, copied)
        below = {"resources": [f"../{directory}"], "patches": [{"patch": yaml.safe_dump(patch)}]}
        above = {"resources": ["../below"], "components": [f"../components/{component}" for component in components]}
        for layer, kustomization in (("below", below), ("above", above)):
            (copied / layer).mkdir()
            (copied / layer / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
        return _render(str(copied / "above"))


@functools.cache
def _variants():
    found = {"base": render("base")}
    for overlay in OVERLAYS:
        found[f"overlays/{overlay}"] = render(f"overlays/{overlay}")
    for component in COMPONENTS:
        found[f"base with {component}"] = render_with("base", component)
    for component in ("hpa", "keda", "recreate"):
        found[f"production with {component}"] = render_with("overlays/production", component)
    return found


def variants():
    """Everything that is rendered here, by a name for messages."""
    return copy.deepcopy(_variants())


def of_kind(objects, kind, name=None):
    """The objects of a kind."""
    return [o for o in objects if o["kind"] == kind and name in (None, o["metadata"]["name"])]


def service(objects):
    """The Deployment of the service."""
    (deployment,) = of_kind(objects, "Deployment", SERVICE)
    return deployment


def container(deployment):
    """Its only container."""
    (only,) = deployment["spec"]["template"]["spec"]["containers"]
    return only


def config_text(objects):
    """The config.yaml that the service's pod gets."""
    volumes = service(objects)["spec"]["template"]["spec"]["volumes"]
    (name,) = [volume["configMap"]["name"] for volume in volumes if volume["name"] == "config"]
    (config_map,) = of_kind(objects, "ConfigMap", name)
    return config_map["data"]["config.yaml"]


def setting(objects, path):
    """A setting as the pod has it: environment over ConfigMap over the defaults built into the program."""
    variable = "DAISI_CDC_" + path.replace(".", "__").upper()
    for entry in container(service(objects)).get("env", []):
        if entry["name"] == variable:
            return yaml.safe_load(entry["value"])
    for text in (config_text(objects), (REPOSITORY / "config.yaml").read_text()):
        value = yaml.safe_load(text)
        for part in path.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if value is not None:
            return value
    raise AssertionError(f"no setting {path}")


def seconds(duration):
    """A duration of config.yaml, such as 25s, in seconds."""
    number, unit = re.fullmatch(r"([0-9]+)(ms|s|m|h|d)", duration).groups()
    return int(number) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}[unit]

"""The files of deploy/ against the command that they start."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import typer
import yaml

from distildire.cli import app
from distildire.web.settings import KEY_VARIABLE

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"

FILES = ("Dockerfile", "kubernetes.yaml", "distildire.service")


def variables_of_serve() -> dict[str, object]:
    serve = typer.main.get_command(app).commands["serve"]  # type: ignore[attr-defined]
    return {str(p.envvar): p.default for p in serve.params if p.envvar}


def values(name: str) -> dict[str, str]:
    text = (DEPLOY / name).read_text()
    if name.endswith(".yaml"):
        deployment = next(iter(yaml.safe_load_all(text)))
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        return {v["name"]: v["value"] for v in container["env"] if "value" in v}
    return dict(re.findall(r"(DISTILDIRE_[A-Z]+)=([^\s\\\"$]+)", re.sub(r"(?m)^#.*$", "", text)))


def test_all_set_what_serve_reads() -> None:
    defaults = variables_of_serve()
    assert len(defaults) == 5
    for name in FILES:
        found = values(name)
        assert set(found) == set(defaults), name
        for variable in set(defaults) - {"DISTILDIRE_HOST"}:
            assert found[variable] == str(getattr(defaults[variable], "value", defaults[variable]))
        assert KEY_VARIABLE in (DEPLOY / name).read_text()


def test_the_page_on_serving_lists_them_once() -> None:
    rows = re.findall(r"(?m)^\| `(DISTILDIRE_\w+)` \|", (ROOT / "docs/serving.md").read_text())
    assert sorted(rows) == sorted([*variables_of_serve(), KEY_VARIABLE])


def test_packages_have_the_bounds_of_the_extra() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    (bound,) = (p for p in extras["gpu"] if p.startswith("onnxruntime-gpu"))
    commands = re.sub(r"(?m)^#.*$", "", (DEPLOY / "Dockerfile").read_text())
    asked = re.findall(r"(onnxruntime-gpu)(?:\[[\w,]+\])?([^\s']*)", commands)
    assert ["".join(one) for one in asked] == [bound, bound]


def test_nobody_is_root() -> None:
    docker = (DEPLOY / "Dockerfile").read_text()
    assert re.search(r"(?m)^USER (?!root|0\b)", docker)
    assert "HEALTHCHECK" in docker
    pod = next(iter(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())))
    spec = pod["spec"]["template"]["spec"]
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["containers"][0]["securityContext"]["readOnlyRootFilesystem"]
    assert "DynamicUser=yes" in (DEPLOY / "distildire.service").read_text()


def test_the_image_copies_what_the_build_needs() -> None:
    """Every path that COPY names is in the repository, and not ignored."""
    kept = (ROOT / ".dockerignore").read_text()
    for line in re.findall(r"(?m)^COPY (?!--from)(.*)$", (DEPLOY / "Dockerfile").read_text()):
        for path in line.split()[:-1]:
            assert (ROOT / path).exists()
            assert f"!{path}" in kept


def test_images_may_have_other_extras() -> None:
    docker = (DEPLOY / "Dockerfile").read_text()
    given = re.findall(r"(?m)(?:^ARG |--build-arg )EXTRAS=([\w,]+)", docker)
    assert sorted(given) == ["web,video", "web,video,gpu", "web,video,openvino"]
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {extra for extras in given for extra in extras.split(",")} <= set(known)
    assert '".[${EXTRAS}]"' in docker

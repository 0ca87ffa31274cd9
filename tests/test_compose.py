"""docker-compose.yml: valid, closed to the outside, and what `services=compose` expects."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from ssot.configuration.reference import COMPOSE
from ssot.lab.services import ServiceError
from ssot.lab.services.external import compose_urls

REPOSITORY = Path(__file__).parents[1]
FILE = REPOSITORY / "docker-compose.yml"
SERVICES = yaml.safe_load(FILE.read_text())["services"]
USES = re.findall(r"(?<!\$)\$\{(\w+)([^}]*)\}", FILE.read_text())
REQUIRED = {each.name for each in COMPOSE if each.default is None}


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for each in COMPOSE:
        monkeypatch.delenv(each.name, raising=False)
    return monkeypatch


def test_the_file_is_valid():
    """It follows the JSON schema of the Compose Specification."""
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", FILE],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_docker_accepts_the_file(tmp_path: Path):
    """`docker compose`, where it is installed, reads it, and refuses it without a password."""
    try:
        found = subprocess.run(["docker", "compose", "version"], capture_output=True).returncode
    except OSError:
        found = 1
    if found != 0:
        pytest.skip("docker with its compose plugin is not installed")
    given = {"PATH": os.environ["PATH"], **dict.fromkeys(REQUIRED, "dummy")}
    empty = tmp_path / "env"
    empty.touch()
    command = ["docker", "compose", "--file", str(FILE), "--env-file", str(empty), "config", "-q"]
    done = subprocess.run(command, env=given, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in REQUIRED:
        without = {key: value for key, value in given.items() if key != name}
        done = subprocess.run(command, env=without, capture_output=True, text=True)
        assert done.returncode != 0
        assert name in done.stderr


def test_every_port_is_published_on_this_machine_alone():
    """Nothing is reachable from the network, and every service is from here."""
    for service in SERVICES.values():
        assert service["ports"]
        for port in service["ports"]:
            assert re.fullmatch(r"127\.0\.0\.1:\$\{\w+_PORT:-\d+\}:\d+", port)
        assert service.get("network_mode") is None


def test_no_password_has_a_default():
    """What is secret must be given, at every place; an empty value does not count."""
    assert {"POSTGRES_PASSWORD", "REDIS_PASSWORD", "JUPYTER_TOKEN"} == REQUIRED
    for name, rule in USES:
        if re.search("PASSWORD|TOKEN", name):
            assert name in REQUIRED
            assert rule.startswith(":?")


def test_the_variables_are_those_of_the_reference():
    """Names and defaults are the ones that `.env.example` shows."""
    assert {name for name, _ in USES} == {each.name for each in COMPOSE}
    defaults = {name: rule.removeprefix(":-") for name, rule in USES if rule.startswith(":-")}
    assert defaults == {each.name: each.default for each in COMPOSE if each.default is not None}


def test_the_lab_finds_the_servers_at_the_files_defaults(
    tmp_path: Path, variables: pytest.MonkeyPatch
):
    """With just the passwords given, the lab and Docker agree on the ports."""
    variables.setenv("POSTGRES_PASSWORD", "one")
    variables.setenv("REDIS_PASSWORD", "two")
    for server, name in zip(compose_urls(tmp_path), ("POSTGRES_PORT", "REDIS_PORT"), strict=True):
        assert ("127.0.0.1", str(server.port)) == (
            server.host,
            next(each.default for each in COMPOSE if each.name == name),
        )


def test_the_lab_reads_the_same_variables(tmp_path: Path, variables: pytest.MonkeyPatch):
    """Each variable of a server reaches its URL, and a password that is missing is named."""
    given = {
        "POSTGRES_PASSWORD": "one",
        "POSTGRES_PORT": "1111",
        "REDIS_PASSWORD": "two",
        "REDIS_PORT": "2222",
    }
    assert {name for name, _ in USES if not name.startswith("JUPYTER_")} == set(given)
    for name, value in given.items():
        variables.setenv(name, value)
    postgres, redis = compose_urls(tmp_path)
    for url, name in ((postgres.admin_url, "POSTGRES"), (redis.url, "REDIS")):
        parts = urlsplit(url)
        assert parts.password == given[f"{name}_PASSWORD"]
        assert str(parts.port) == given[f"{name}_PORT"]
        variables.delenv(f"{name}_PASSWORD")
        with pytest.raises(ServiceError, match=f"{name}_PASSWORD"):
            compose_urls(tmp_path)
        variables.setenv(f"{name}_PASSWORD", given[f"{name}_PASSWORD"])


def test_jupyterlab_has_the_other_two_as_its_servers():
    """Notebooks in the container use them by URL, without being told."""
    environment = SERVICES["jupyterlab"]["environment"]
    assert environment["SSOT_LAB_SERVICES"] == "url"
    for name, service, port in (
        ("SSOT_DATABASE_URL", "postgres", 5432),
        ("SSOT_REDIS_URL", "redis", 6379),
    ):
        parts = urlsplit(environment[name].replace("?is not set", ""))
        assert (parts.hostname, parts.port) == (service, port)
        assert SERVICES["jupyterlab"]["depends_on"][service] == {"condition": "service_healthy"}
        assert any(published.endswith(f":{port}") for published in SERVICES[service]["ports"])

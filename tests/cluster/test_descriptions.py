"""The descriptions of clusters that cannot run here: by Ray's own check where there is one, else by what they must say."""

from __future__ import annotations

import configparser
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from integration.tiny import REPOSITORY

CLUSTER = REPOSITORY / "cluster"
START = (CLUSTER / "mlflow" / "start.sh").read_text()


def load(name: str) -> Any:
    return yaml.safe_load((CLUSTER / name).read_text())


def version(package: str) -> str:
    pinned = (REPOSITORY / "constraints.txt").read_text()
    return re.search(rf"^{re.escape(package)}==(\S+)$", pinned, re.MULTILINE)[1]


def test_ray_takes_the_launchers_file_and_every_node_has_the_token() -> None:
    from jsonschema import ValidationError
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(load("ray/autoscaler.yaml"))
    validate_config(config)
    with pytest.raises(ValidationError):
        validate_config(config | {"max_worker": 4})
    assert config["file_mounts"] == {"/home/ubuntu/.ray/auth_token": "~/.ray/auth_token"}
    starts = [*config["head_start_ray_commands"], *config["worker_start_ray_commands"]]
    started = [command for command in starts if "ray start" in command]
    assert len(started) == 2
    assert all(command.startswith("RAY_AUTH_MODE=token ") for command in started)
    types = config["available_node_types"]
    assert types["gpu"]["min_workers"] == types["gpu"]["max_workers"] == config["max_workers"]
    assert types[config["head_node_type"]]["resources"]["CPU"] == 0


def test_the_job_for_kuberay_has_a_token_one_image_and_volumes_that_exist() -> None:
    job = load("ray/kuberay.yaml")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["rayVersion"] == version("ray")
    assert job["spec"]["backoffLimit"] > 0  # a sweep that was stopped goes on
    assert "unsee sweep " in job["spec"]["entrypoint"]
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    [workers] = cluster["workerGroupSpecs"]
    assert workers["replicas"] == workers["minReplicas"] == workers["maxReplicas"]
    pods = [group["template"]["spec"] for group in (cluster["headGroupSpec"], workers)]
    containers = [container for pod in pods for container in pod["containers"]]
    assert len({container["image"] for container in containers}) == 1
    for pod in pods:
        volumes = {volume["name"] for volume in pod["volumes"]}
        [container] = pod["containers"]
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert {"name": "shared", "mountPath": "/shared"} in container["volumeMounts"]


def test_the_containers_of_mlflow_do_what_the_plain_commands_do() -> None:
    compose = load("mlflow/compose.yaml")
    server, database = compose["services"]["mlflow"], compose["services"]["postgres"]
    assert f"mlflow[auth]=={version('mlflow')}" in server["build"]["dockerfile_inline"]
    assert f"psycopg2-binary=={version('psycopg2-binary')}" in server["build"]["dockerfile_inline"]
    options = {word.split("=")[0] for word in server["command"] if word.startswith("--")}
    plain = re.search(r"setsid (mlflow server .*?)</dev/null", START, re.DOTALL)[1] + "--app-name"
    assert options == set(re.findall(r"--[a-z-]+", plain))
    of_containers = "MLFLOW_SERVER_ALLOWED_HOSTS"  # others have no name of their own on one machine
    for name in (*server["environment"], "scram-sha-256"):
        assert name in START or name == of_containers
    assert server["environment"]["MLFLOW_BACKEND_STORE_URI"].startswith("postgresql+psycopg2://mlflow:")
    assert "postgresql+psycopg2://mlflow:" in START
    assert "scram-sha-256" in database["environment"]["POSTGRES_INITDB_ARGS"]
    assert all(port.startswith("127.0.0.1:") for port in server["ports"])
    assert "ports" not in database


def test_both_ask_for_passwords_alike() -> None:
    inside = configparser.ConfigParser(interpolation=None)
    inside.read_string(load("mlflow/compose.yaml")["configs"]["auth"]["content"])
    plain = configparser.ConfigParser(interpolation=None)
    plain.read_string(re.search(r"<<INI\n(.*?)\nINI", START, re.DOTALL)[1])
    for name in ("default_permission", "admin_username", "authorization_function"):
        assert inside["mlflow"][name] == plain["mlflow"][name]
    assert inside["mlflow"]["database_uri"].endswith("/mlflow_auth")
    assert plain["mlflow"]["database_uri"].endswith("/mlflow_auth")


@pytest.mark.parametrize("path", sorted(CLUSTER.rglob("*.yaml")), ids=lambda path: path.name)
def test_no_password_is_written_down(path: Path) -> None:
    for line in path.read_text().splitlines():
        found = re.search(r"(?:PASSWORD|SECRET_KEY|TOKEN)['\"]?[:=]\s*(\S+)", line)
        assert found is None or found[1].startswith(("${", "%s", "PASSWORD", "...")), line

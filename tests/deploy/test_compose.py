"""What the services of compose.yaml say of each other and of files is true."""

import re
from pathlib import Path
from typing import Any

import yaml

from reward_service.config import ServiceSettings, load_settings

DEPLOY = Path(__file__).parents[2] / "deploy"


def read(path: str) -> Any:
    return yaml.safe_load((DEPLOY / path).read_text(encoding="utf-8"))


def port_of(services: dict[str, Any], address: str) -> bool:
    """Whether some service listens at `host:port`."""
    host, _, port = address.rpartition(":")
    return any(str(published).endswith(f":{port}") for published in services[host]["ports"])


def test_every_mounted_file_is_there(services: dict[str, Any]) -> None:
    mounts = [mount.split(":")[0] for service in services.values() for mount in service["volumes"]]
    files = [mount for mount in mounts if mount.startswith(".")]
    assert len(files) == 5
    assert [mount for mount in files if not (DEPLOY / mount).exists()] == []


def test_the_service_can_write_to_its_own_folder_alone(services: dict[str, Any]) -> None:
    service = services["reward-service"]
    assert service["read_only"]
    writable = [mount.split(":") for mount in service["volumes"] if not mount.endswith(":ro")]
    assert writable == [["state", "/var/lib/reward-service"]]
    image = (DEPLOY / "Dockerfile.cpu").read_text()
    assert "chown reward /var/lib/reward-service" in image
    assert set(read("compose.yaml")["volumes"]) == {
        mount.split(":")[0] for one in services.values() for mount in one["volumes"] if mount[0].islower()
    }


def test_every_image_is_pinned(services: dict[str, Any]) -> None:
    images = [service["image"] for service in services.values() if "image" in service]
    assert len(images) == 3
    assert all(re.search(r":v?\d+\.\d+\.\d+$", image) for image in images)
    build = services["reward-service"]["build"]
    assert (DEPLOY / build["context"] / build["dockerfile"]).exists()


def test_nothing_listens_on_the_outside(services: dict[str, Any]) -> None:
    ports = [port for service in services.values() for port in service["ports"]]
    assert len(ports) == 4
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_prometheus_finds_the_service_and_alertmanager(services: dict[str, Any]) -> None:
    config = read("prometheus/prometheus.yml")
    (alertmanagers,) = config["alerting"]["alertmanagers"]
    targets = {job["job_name"]: job["static_configs"][0]["targets"] for job in config["scrape_configs"]}
    for address in [*targets["reward-service"], *alertmanagers["static_configs"][0]["targets"]]:
        assert port_of(services, address)


def test_grafana_finds_prometheus_and_its_dashboards(services: dict[str, Any]) -> None:
    (source,) = read("grafana/provisioning/datasources/prometheus.yaml")["datasources"]
    assert port_of(services, source["url"].removeprefix("http://"))
    (provider,) = read("grafana/provisioning/dashboards/dashboards.yaml")["providers"]
    mounts = dict(mount.split(":")[:2] for mount in services["grafana"]["volumes"])
    assert mounts["./grafana/dashboards"] == provider["options"]["path"]
    assert mounts["./grafana/provisioning"] == "/etc/grafana/provisioning"


def test_the_service_has_time_to_drain(services: dict[str, Any]) -> None:
    service = services["reward-service"]
    (mount,) = [mount for mount in service["volumes"] if mount.startswith("./configs/")]
    settings = load_settings(DEPLOY / mount.split(":")[0], ServiceSettings)
    grace_s = float(service["stop_grace_period"].removesuffix("s"))
    assert grace_s >= settings.drain.timeout_s + 10
    assert (settings.host, settings.port) == ("0.0.0.0", 8000)

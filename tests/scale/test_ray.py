"""Ray itself, on this machine: rows as without it, also when an actor dies; the service."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import typer
import yaml
from fastapi.testclient import TestClient
from PIL import Image

import crashing_decoder as crashing
from distildire import Detector
from distildire.cli.app import app as cli
from distildire.runtime.engines import CUDA
from distildire.scale import addresses
from distildire.scale.items import Item
from distildire.scale.once import Once
from distildire.scale.options import ScoreOptions
from distildire.scale.parts import may_pass
from distildire.scale.score import score, score_with
from distildire.scale.shards import Shard
from distildire.web.app import create_app
from processes import children_of
from scale.rows import assert_same_rows, with_decoder, without_order

pytest.importorskip("ray", reason="Ray is not installed (extra scale)")
import ray

from distildire.scale import ray_engine
from distildire.scale.ray_engine import Actors, actors_for, row_for_actor
from distildire.scale.ray_once import Claims, with_copies

pytestmark = pytest.mark.xdist_group("ray")  # one cluster

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        # Serve kills a proxy that isn't up within three times this; its processes read it when
        # they are born.
        patch.setenv("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "60")
        patch.setenv("PYTHONPATH", str(ROOT / "tests"), prepend=os.pathsep)  # decoders that crash
        for attempt in range(5):  # it waits for 30 seconds, which a busy machine may take
            try:
                ray.init(
                    num_cpus=2, num_gpus=1, include_dashboard=False, logging_level="error",
                    log_to_driver=False, object_store_memory=150 * 2**20,
                )  # fmt: skip
                break
            except Exception as error:
                ray.shutdown()
                if attempt == 4 or "timed out" not in str(error):
                    raise
        yield
        ray.shutdown()


@pytest.fixture
def pictures(folder: Path) -> Path:
    """A folder of pictures, twins, and a file that is none."""
    shutil.copy(folder / "a.png", folder / "twin.png")
    (folder / "text.jpg").write_text("hello")
    return folder


@pytest.mark.skipif(CUDA in onnxruntime.get_available_providers(), reason="CUDA may work here")
def test_gpus_that_do_not_work_are_told_of(
    cluster: None, pictures: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cluster says that it has one. Comes first: the task that tries it asks for all cores."""
    given: list[object] = []

    def no_rows(_: object, options: ScoreOptions, actors: Actors, __: object) -> Iterator[object]:
        given.extend([options.device, actors])
        return iter(())

    monkeypatch.setattr(ray_engine, "score_items", no_rows)
    out = tmp_path / "auto"
    score(pictures, out, model=bundle, engine="ray", device="auto", on_device=given.append)
    assert given == ["cpu", "cpu", Actors(2)]
    assert json.loads((out / "_score.json").read_text())["device"] == "cpu"
    mend = r"^device cuda: .* has no CUDA: pip install [^\n]* give the device cpu$"
    with pytest.raises(ValueError, match=mend):
        score(pictures, tmp_path / "cuda", model=bundle, engine="ray", device="cuda")
    assert not (tmp_path / "cuda").exists()


def test_rows_are_those_of_this_machine(
    cluster: None, pictures: Path, bundle: Path, tmp_path: Path
) -> None:
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        for n in range(3):
            tar.add(pictures / "a.png", f"{n}.png")
    whole = (tmp_path / "s.tar").read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[: len(whole) // 2])
    for name, source in (("files", pictures), ("tars", tmp_path / "*.tar")):
        here, there = tmp_path / f"{name}-local", tmp_path / f"{name}-ray"
        ours = score(source, here, model=bundle)
        rays = score(source, there, model=bundle, engine="ray")
        assert (rays.scored, rays.errors) == (ours.scored, ours.errors)
        assert without_order(here) == without_order(there)
        assert rays.cores == 2
        again = score(source, there, model=bundle, engine="ray")
        assert (again.scored, again.present) == (0, rays.scored)


def test_equal_bytes_are_scored_once(
    cluster: None, pictures: Path, bundle: Path, tmp_path: Path
) -> None:
    """Also when they are of a shard, of an earlier run, or no picture at all."""
    shutil.copytree(pictures, pictures / "copies")
    with tarfile.open(pictures / "s.tar", "w") as tar:
        for n in range(3):
            tar.add(pictures / "a.png", f"{n}.png")
    (pictures / "list.txt").write_text("s.tar\n")
    number = len([p for p in pictures.rglob("*") if p.suffix in {".png", ".jpg"}])
    for source in (pictures, pictures / "list.txt"):
        ours = score(source, tmp_path / "here", model=bundle, dedup=True)
        rays = score(source, tmp_path / "there", model=bundle, dedup=True, engine="ray")
        assert (rays.scored, rays.copies, rays.errors) == (ours.scored, ours.copies, ours.errors)
        assert_same_rows(tmp_path / "there", tmp_path / "here")
    assert rays.copies == 3
    assert len(without_order(tmp_path / "there")) == number + 3


@pytest.mark.parametrize("dedup", [False, True])
def test_what_is_in_the_drivers_memory_is_scored(
    cluster: None, pictures: Path, bundle: Path, tmp_path: Path, dedup: bool
) -> None:
    memory = pytest.importorskip("fsspec").filesystem("memory")
    root = f"memory://{tmp_path.name}"
    memory.put(str(pictures), f"/{tmp_path.name}", recursive=True)
    score(root, tmp_path / "here", model=bundle)
    report = score(root, tmp_path / "there", model=bundle, engine="ray", dedup=dedup)
    assert (report.scored, report.errors) == (4, 1)
    assert_same_rows(tmp_path / "there", tmp_path / "here")


def test_a_file_may_claim_its_bytes_again_and_another_may_not() -> None:
    claims = Claims([b"old"])
    assert claims.claim([b"a", b"a", b"old", None], ["x", "y", "z", "w"]) == [
        True, False, False, True,
    ]  # fmt: skip
    assert claims.claim([b"a", b"a"], ["y", "x"]) == [False, True]


def test_copies_of_an_original_that_was_changed_are_tried_again(detector: Detector) -> None:
    """It was claimed by an actor that died; another has read other bytes."""
    once = Once(detector)
    made = detector.not_scored("x.png", "a copy").to_dict() | {
        "size": 3,
        "mtime": 1.5,
        "etag": None,
    }
    hashes = {"x.png": (b"new".hex(), False), "y.png": (b"old".hex(), True)}
    rows = [made | {"path": p, "digest": d, "copy": c} for p, (d, c) in hashes.items()]
    original, copy = with_copies(rows, once)
    assert (original["path"], copy["path"]) == ("x.png", "y.png")
    assert original.keys() == copy.keys() == made.keys()
    assert (copy["sha256"], copy["probability"], once.copies) == (None, None, 0)
    assert may_pass(copy)
    assert not may_pass(original)


def test_a_killed_actor_costs_no_row(
    cluster: None, bundle: Path, busy: np.ndarray, tmp_path: Path
) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for n in range(150):
        Image.fromarray(np.roll(busy, n, axis=1)).save(folder / f"{n:03d}.jpg")
    killed = []

    def kill_one(_: object) -> None:
        if not killed:
            actors = [pid for pid in actors_at_work() if pid not in killed]
            killed.extend(actors[:1])
            for pid in killed:
                os.kill(pid, signal.SIGKILL)

    score(folder, tmp_path / "ray", model=bundle, engine="ray", progress=kill_one)
    assert killed
    score(folder, tmp_path / "local", model=bundle)
    assert_same_rows(tmp_path / "ray", tmp_path / "local")


def actors_at_work() -> list[int]:
    """Processes of this cluster, which are its raylet's children, that Ray has named after their
    actor."""
    found = []
    for process in itertools.chain.from_iterable(map(children_of, children_of(os.getpid()))):
        with contextlib.suppress(OSError):
            name = Path(f"/proc/{process}/cmdline").read_bytes()
            if name.startswith(b"ray::") and b"MapWorker" in name:
                found.append(process)
    return found


def test_a_file_that_crashes_its_decoder_costs_its_row(
    cluster: None, pictures: Path, bundle: Path, tmp_path: Path
) -> None:
    """Decoding is in processes of its own, asked for or not."""
    (pictures / "b.png").write_bytes(crashing.ABORT)
    here, there, decoder = tmp_path / "here", tmp_path / "there", "crashing_decoder:decode"
    score_with(pictures, here, with_decoder(bundle, decoder))
    report = score_with(pictures, there, with_decoder(bundle, decoder, engine="ray", isolate=False))
    assert (report.scored, report.errors) == (5, 2)
    assert_same_rows(there, here)
    (crashed,) = (row for row in without_order(there) if str(row["path"]).endswith("b.png"))
    assert crashed["error"] == "this file makes its decoder crash"


def test_what_fails_in_an_actor_is_one_sentence(
    cluster: None, pictures: Path, bundle: Path, tmp_path: Path
) -> None:
    options = with_decoder(bundle, "no_module:decode", engine="ray")
    with pytest.raises(ValueError, match=r"^a decoding process could not be started$"):
        score_with(pictures, tmp_path / "out", options)


ALONE = """
import sys
from pathlib import Path
from distildire.scale import ray_engine
from distildire.scale.score import score_with
from scale.rows import with_decoder

ray_engine.RETRIES = 1
options = with_decoder(Path(sys.argv[3]), "crashing_decoder:decode", engine="ray")
try:
    score_with(sys.argv[1], sys.argv[2], options)
except ValueError as error:
    print(f"SAID {error}")
"""


def test_a_run_whose_actors_all_die_ends(pictures: Path, bundle: Path, tmp_path: Path) -> None:
    """On a Ray of its own: an actor that is restarted after the end of the run keeps its core."""
    (pictures / "b.png").write_bytes(crashing.KILL)
    command = [sys.executable, "-c", ALONE, str(pictures), str(tmp_path / "out"), str(bundle)]
    about = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), *sys.path])}
    ended = subprocess.run(
        command, env=about, capture_output=True, text=True, timeout=600, check=True
    )
    (said,) = (line for line in ended.stdout.splitlines() if line.startswith("SAID "))
    assert said.startswith("SAID Ray's actors died 2 times of the same files: see that")


def test_relative_paths_are_those_of_the_driver(
    cluster: None, pictures: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cluster was started in another folder."""
    with tarfile.open(pictures / "s.tar", "w") as tar:
        tar.add(pictures / "a.png", "m.png")
    (pictures / "list.txt").write_text("a.png\ns.tar::m.png\n")
    monkeypatch.chdir(pictures.parent)
    model = os.path.relpath(bundle)
    for dedup, source in ((False, pictures.name), (True, f"{pictures.name}/list.txt")):
        here, there = Path(f"here-{dedup}"), Path(f"there-{dedup}")
        score(source, here, model=model, dedup=dedup)
        score(source, there, model=model, dedup=dedup, engine="ray")
        assert_same_rows(there, here)
        paths = [str(row["path"]) for row in without_order(there)]
        assert all(path.startswith(f"{pictures.name}/") for path in paths)


def test_actors_share_cores_and_gpus_out() -> None:
    assert actors_for([{"CPU": 6.0}], "cpu") == Actors(6)
    assert actors_for([{"CPU": 6.0}], "auto") == Actors(6)
    assert actors_for([{"CPU": 16.0, "GPU": 2.0}], "cpu") == Actors(16)
    assert actors_for([{"CPU": 16.0, "GPU": 2.0}], "cuda") == Actors(2, 8, 1.0)
    assert actors_for([{"CPU": 16.0, "GPU": 2.0}], "cuda", 0.25) == Actors(8, 2, 0.25)
    assert actors_for([{"CPU": 3.0, "GPU": 1.0}], "auto", 0.25) == Actors(3, 1, 0.25)
    with pytest.raises(ValueError, match="the Ray cluster has no GPU"):
        actors_for([{"CPU": 8.0}], "cuda")
    with pytest.raises(ValueError, match="share of a GPU is 0"):
        actors_for([{"CPU": 8.0, "GPU": 1.0}], "cuda", 0.0)


def test_actors_take_no_more_cores_than_the_machines_with_gpus_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What no machine has, Ray would wait for in vain."""
    nodes: list[dict[str, object]] = [
        {"Alive": True, "Resources": {"CPU": 16.0, "memory": 1e9}},
        {"Alive": True, "Resources": {"CPU": 8.0, "GPU": 1.0}},
        {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}},
        {"Alive": True, "Resources": {"GPU": 1.0}},  # no cores: nothing could decode
    ]
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    with ray_engine.connected() as found:
        assert actors_for(found, "cuda") == Actors(1, 8, 1.0)
        assert actors_for(found, "auto", 0.5) == Actors(2, 4, 0.5)
        assert actors_for(found, "cpu") == Actors(24)
    nodes.append({"Alive": True, "Resources": {"CPU": 4.0, "GPU": 4.0}})
    with ray_engine.connected() as found:
        assert actors_for(found, "cuda") == Actors(5, 1, 1.0)


def test_an_error_of_rays_is_its_last_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> Iterator[dict[str, object]]:
        yield {"path": "a.png"}
        raise ray.exceptions.RaySystemError(
            "Traceback:\n  File x\na.b.BundleError: no GPU: give cpu"
        )

    monkeypatch.setattr(ray_engine, "rows_of_actors", fail)
    with pytest.raises(ValueError, match=r"no GPU: give cpu$") as found:
        list(ray_engine.score_items([], None, Actors(1)))  # type: ignore[arg-type]
    assert "\n" not in str(found.value)


def test_a_cluster_that_can_not_be_reached_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise ConnectionError("Failed to connect to Ray cluster at 192.0.2.1:6379")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refuse)
    mend = r"^Failed to connect .*:6379: .* RAY_AUTH_MODE=token"
    with pytest.raises(ValueError, match=mend), ray_engine.connected():
        pass


@pytest.mark.parametrize("failures", [0, 1, 2])
def test_what_the_run_has_started_is_ended_and_a_start_has_a_second_try(
    failures: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = []

    def start(**_: object) -> None:
        done.append("init")
        if done.count("init") <= failures:
            raise Exception("The current node timed out during startup. This could be ...")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", start)
    monkeypatch.setattr(ray, "shutdown", lambda: done.append("shutdown"))
    monkeypatch.setattr(ray, "nodes", list)
    if failures < 2:
        with ray_engine.connected():
            done.append("run")
    else:
        mend = r"^The current node timed out during startup: .*ray start --head\)$"
        with pytest.raises(ValueError, match=mend), ray_engine.connected():
            done.append("run")
    tries = ["init", "shutdown"] * failures
    assert done == [*tries, *(["init", "run", "shutdown"] if failures < 2 else [])]


def test_the_service_answers_as_without_ray(
    cluster: None, bundle: Path, busy: np.ndarray, flat: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    import httpx
    from ray import serve

    from distildire.scale.serve import app

    files = []
    for pixels in (busy, flat):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        files.append(("file", ("a.png", buffer.getvalue())))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    about = {"DISTILDIRE_MODEL": str(bundle), "DISTILDIRE_FPR": "0.05", "DISTILDIRE_API_KEY": "k"}
    options = {"num_cpus": 1, "runtime_env": {"env_vars": about}}
    deployment = app._bound_deployment.options(ray_actor_options=options)
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    try:
        serve.run(deployment.bind())
        base = f"http://127.0.0.1:{port}"
        assert httpx.post(f"{base}/v1/detect", files=files, timeout=60).status_code == 401
        headers = {"Authorization": "Bearer k"}
        there = httpx.post(f"{base}/v1/detect", files=files, headers=headers, timeout=60)
        assert httpx.get(f"{base}/healthz", timeout=60).json()["status"] == "ok"
        assert "<html" in httpx.get(base, timeout=60).text
    finally:
        serve.shutdown()
    with TestClient(create_app(Detector(bundle, fpr=0.05))) as client:
        here = client.post("/v1/detect", files=files)
    assert there.status_code == here.status_code == 200
    assert there.json() == here.json()


def test_the_yaml_deploys_the_application() -> None:
    from ray.serve.schema import ServeDeploySchema

    from distildire.scale.serve import app

    content = yaml.safe_load((ROOT / "deploy/ray-serve.yaml").read_text())
    (application,) = ServeDeploySchema(**content).applications
    assert application.import_path == "distildire.scale.serve:app"
    (deployment,) = application.deployments
    assert deployment.name == app._bound_deployment.name
    given = application.runtime_env["env_vars"]
    command = typer.main.get_command(cli).commands["serve"]  # type: ignore[attr-defined]
    defaults = {p.envvar: getattr(p.default, "value", p.default) for p in command.params}
    assert given == {name: str(defaults[name]) for name in given}
    assert set(given) == {"DISTILDIRE_MODEL", "DISTILDIRE_FPR", "DISTILDIRE_DEVICE"}


def test_actors_read_objects_and_are_told_what_is_wrong_with_the_rest() -> None:
    whole = addresses.item_from("s3://b/a.png", {"size": 3})
    large = addresses.item_from("s3://b/a.png", {"size": 2**40})
    broken = Shard(Item("memory://b/s.tar", 9, 1.0), io.BytesIO).failed("the tar is damaged")
    assert row_for_actor(whole)["data"] is row_for_actor(whole)["wrong"] is None
    assert "too large" in row_for_actor(large)["wrong"]
    assert row_for_actor(broken)["wrong"] == "the tar is damaged"

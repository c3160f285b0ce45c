"""A Ray job on two nodes, one of which is cut off in the middle: no row lost, none twice."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distildire.scale.score import score
from scale.rows import assert_same_rows, rows_of
from scale.two_nodes import TwoNodes, can_make_namespaces

pytest.importorskip("ray", reason="Ray is not installed (extra scale)")
pytestmark = [
    pytest.mark.xdist_group("ray"),
    pytest.mark.skipif(
        not can_make_namespaces(), reason="no network namespaces: needs root and ip netns"
    ),
]

COUNT = 200

DRIVER = """
import sys
import time
import ray
from distildire.scale.score import score
source, out, model = sys.argv[1:]
ray.init(log_to_driver=False)  # else it is left with the run
report = score(source, out, model=model, engine="ray", part_rows=20)
until = time.monotonic() + 120  # the job may end before Ray knows
while (alive := sum(node["Alive"] for node in ray.nodes())) > 1 and time.monotonic() < until:
    time.sleep(0.5)
print("REPORT", report.scored, report.errors, report.cores, alive)
"""


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Names of one photograph-sized file, so that the job lasts."""
    folder = tmp_path_factory.mktemp("many")
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (1100, 1500, 3), np.uint8)).save(folder / "000.jpg")
    for n in range(1, COUNT):
        os.link(folder / "000.jpg", folder / f"{n:03d}.jpg")
    return folder


def test_a_node_cut_off_in_the_middle_costs_no_row(
    many: Path, bundle: Path, tmp_path: Path
) -> None:
    out = tmp_path / "ray"
    with TwoNodes() as nodes:
        driver = nodes.head(sys.executable, "-c", DRIVER, str(many), str(out), str(bundle))
        until = time.monotonic() + 600
        while len(list(out.glob("part-*.parquet"))) < 2:
            assert driver.poll() is None, driver.communicate()[0].decode()[-3000:]
            assert time.monotonic() < until
            time.sleep(0.05)
        nodes.cut()
        done = len(rows_of(out))
        said = driver.communicate(timeout=600)[0].decode()
    assert done < COUNT
    assert driver.returncode == 0, said[-3000:]
    assert f"REPORT {COUNT} 0 2 1" in said  # two cores at the start, one node at the end
    score(many, tmp_path / "local", model=bundle, dedup=True)
    assert_same_rows(out, tmp_path / "local")

"""The service on Ray Serve: the API of `distildire serve`, in as many replicas as it takes.

    serve run distildire.scale.serve:app           # or: serve deploy deploy/ray-serve.yaml

Extras `scale` and `web`. A replica is set by the variables that `distildire serve` reads, and
uses the cores and the share of a GPU that Ray gave it; on a GPU, what waits is scored together.
"""

from __future__ import annotations

import logging
import os

import ray
from fastapi import FastAPI
from ray import serve

from distildire.detector import DEFAULT_FPR, Detector
from distildire.web.app import create_app
from distildire.web.settings import KEY_VARIABLE, Settings, key_from_environment

log = logging.getLogger(__name__)


def service() -> FastAPI:
    """The application of one replica, made where it runs.

    Raises:
        BundleError, ValueError: a model, budget or device that can't be used.
    """
    settings = Settings(key=key_from_environment(), isolate=True)
    if settings.key is None:
        log.warning("no key is asked for: set %s on the cluster's machines", KEY_VARIABLE)
    given = ray.get_runtime_context().get_assigned_resources()
    detector = Detector(
        os.environ.get("DISTILDIRE_MODEL", "nano"),
        fpr=float(os.environ.get("DISTILDIRE_FPR", DEFAULT_FPR)),
        device=os.environ.get("DISTILDIRE_DEVICE", "cpu"),
        threads=max(1, int(given.get("CPU", 1))),
    )
    return create_app(detector, settings)


_replica = serve.deployment(
    name="distildire", max_ongoing_requests=32, ray_actor_options={"num_cpus": 1}
)
app = _replica(serve.ingress(service)()).bind()
"""What `serve run` and deploy/ray-serve.yaml start."""

"""What a verdict costs: parameters, FLOPs, seconds and memory of each method, in one run.

Extra `train`.
"""

from __future__ import annotations

from distildire.bench.gpu import bench_gpu, gpu_works
from distildire.bench.run import METHODS, MethodSpec, bench

__all__ = ["METHODS", "MethodSpec", "bench", "bench_gpu", "gpu_works"]

#!/bin/sh
# All figures of a GPU in one JSON: OUT/bench.json, with bench.md and bench.png beside it.
#   deploy/gpu-bench.sh [SECONDS] [OUT]
# From a checkout or with distildire installed (extras train and gpu); installs nothing. What
# can't be measured is a row that says why; what is measured is written at once.
set -eu
cd "$(dirname "$0")/.."
limit=${1:-${LIMIT:-450}}
out=${2:-${OUT:-build/gpu-bench}}
PYTHONPATH=src${PYTHONPATH:+:$PYTHONPATH} exec "${PYTHON:-python3}" -m distildire bench \
    --device cuda --limit "$limit" --out "$out"

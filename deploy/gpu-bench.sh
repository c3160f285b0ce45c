#!/bin/sh
# All figures of a GPU in one JSON: OUT/bench.json, with bench.md and bench.png beside it.
#   deploy/gpu-bench.sh [SECONDS] [OUT]     OUT: relative to where you are; else in the checkout
# From a checkout or with distildire installed (extras train and gpu); installs nothing. What
# can't be measured is a row that says why; what is measured is written at once.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
limit=${1:-${LIMIT:-450}}
out=${2:-${OUT:-$here/build/gpu-bench}}
python=${PYTHON:-python3}
export PYTHONPATH="$here/src${PYTHONPATH:+:$PYTHONPATH}"
if ! "$python" -c 'import distildire.cli' 2>/dev/null; then
    echo "$python can't run distildire: pip install 'distildire[train,gpu]' there, or set PYTHON" >&2
    exit 2
fi
exec "$python" -m distildire bench --device cuda --limit "$limit" --out "$out"

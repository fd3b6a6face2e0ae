#!/usr/bin/env bash
# Everything that needs an NVIDIA GPU, in one go: build with CUDA where nvcc is there, the GPU tests, the benchmarks, a
# short training. Ends without an error, and without doing anything, on a machine without a GPU.
#
#   benchmarks/gpu.sh [NAME]     results to $OUT where that is set, else to benchmarks/results; NAME defaults to "gpu"
#
# python3 must have torch with CUDA, pytest, pytest-benchmark, pybind11, ninja and setuptools: nothing is downloaded.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=${PYTHON:-python3}
name=${1:-gpu}
out=${OUT:-benchmarks/results}

if ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
    echo "benchmarks/gpu.sh: no NVIDIA GPU that torch can use here; nothing was done"
    exit 0
fi
mkdir -p "$out"
out=$(cd "$out" && pwd)
failed=()

step() { # step LOG COMMAND...: run it, keep its output, remember whether it failed
    local log="$out/$name-$1.log"
    shift
    printf '\n== %s (%d s)\n' "$*" "$SECONDS"
    "$@" >"$log" 2>&1 || failed+=("$*")
    tail -n 40 "$log"
}

nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || true
step install "$python" -m pip install --no-deps --no-build-isolation --force-reinstall .
step doctor "$python" -P -m fastpose doctor
step tests "$python" -P -m pytest -p no:cacheprovider -m gpu
step benchmarks "$python" -P -m pytest -p no:cacheprovider --benchmark-only -k cuda --save-results="$out/$name.json"
step training "$python" -P -m fastpose train sagan/demo run.device=cuda run.max_minutes="${MINUTES:-2}" --out "$out/$name-runs"
rm -rf "$out/$name-runs"  # the log holds its numbers

if [ ${#failed[@]} -gt 0 ]; then
    printf 'benchmarks/gpu.sh: failed: %s\n' "${failed[@]}" >&2
    exit 1
fi
echo "benchmarks/gpu.sh: all done in $SECONDS s; logs and $name.json are in $out"

#!/usr/bin/env bash
# Everything that needs an NVIDIA GPU, in one go and within ten minutes: build with CUDA where nvcc is there, the GPU
# tests, compute-sanitizer on the CUDA kernels, the benchmarks with a picture, short trainings. A step that fails or
# outlasts its time is named, and the next one runs; the exit code tells at the end. On a machine without a GPU it does
# nothing and ends without an error.
#
#   benchmarks/gpu.sh [NAME]     results to $OUT where that is set, else to benchmarks/results/<gpu>; NAME is that of
#                                NAME.json and NAME.png, by default the GPU's
#   TOTAL=570 TESTS=230 BENCHMARKS=200 TRAINING=30     seconds for all, and at most for a step
#
# Nothing is downloaded: python3 must have pip, setuptools, pybind11 and ninja to build; torch with CUDA and its triton,
# numpy, opencv-python, scipy, safetensors, pyyaml, typer, rich and matplotlib to run; pytest, pytest-benchmark and
# pytest-timeout to test. pytest-xdist is used where it is there.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=${PYTHON:-python3}
total=${TOTAL:-570}

if ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
    echo "benchmarks/gpu.sh: no NVIDIA GPU that torch can use here; nothing was done"
    exit 0
fi
gpu=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -n 1 | tr 'A-Z ' 'a-z-' | tr -cd 'a-z0-9.-')
name=${1:-${gpu:-gpu}}
out=${OUT:-benchmarks/results/${gpu:-gpu}}
mkdir -p "$out"
out=$(cd "$out" && pwd)
verdicts=()
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

note() { # note NAME STATUS: keep how a step ended
    case $2 in
        0) verdicts+=("passed: $1") ;;
        124 | 137) verdicts+=("out of time: $1") ;;
        *) verdicts+=("failed: $1 (exit code $2)") ;;
    esac
}

step() { # step NAME SECONDS COMMAND...: run it for so long at most, append its output to NAME.log, note how it ended
    local name=$1 limit=$2 left=$((total - SECONDS)) status=0
    shift 2
    [ "$limit" -gt "$left" ] && limit=$left
    if [ "$limit" -lt 2 ]; then
        verdicts+=("out of time: $name was not begun")
        return
    fi
    printf '\n== %s: %s (at %d s, for %d s at most)\n' "$name" "$*" "$SECONDS" "$limit"
    # SIGINT first: pytest then stops between two tests and still writes what it has.
    timeout -s INT -k 15 "$limit" "$@" >>"$out/$name.log" 2>&1 || status=$?
    note "$name" "$status"
    tail -n 15 "$out/$name.log"
}

has() { "$python" -c "import importlib.util, sys; sys.exit(importlib.util.find_spec('$1') is None)" 2>/dev/null; }

rm -f "$out"/{install,tests,sanitizer,benchmarks,training,summary}.log
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || true

step install 240 "$python" -m pip install --no-deps --no-build-isolation --force-reinstall .
step install 40 "$python" -P -m fastpose doctor

# Compiling for the GPU keeps one core busy per test: several processes where pytest-xdist is there.
parallel=()
has xdist && parallel=(-n 6 -p no:benchmark)
step tests "${TESTS:-230}" "$python" -P -m pytest -p no:cacheprovider -m gpu --continue-on-collection-errors -q \
    --durations=10 "${parallel[@]+"${parallel[@]}"}" tests

if command -v compute-sanitizer >/dev/null; then
    export PYTORCH_NO_CUDA_MEMORY_CACHING=1
    for tool in memcheck racecheck; do
        step sanitizer 75 compute-sanitizer --tool "$tool" --error-exitcode 9 "$python" benchmarks/exercise_cuda.py
    done
    unset PYTORCH_NO_CUDA_MEMORY_CACHING
else
    verdicts+=("left out: sanitizer, compute-sanitizer is not on PATH")
fi

# What Triton and torch.compile have to build is built by several processes before anything is timed.
step benchmarks 90 "$python" benchmarks/compile_ahead.py

# The budget ends the measuring a little before the step would be interrupted, which is when all the time is spent or
# its own is, whichever comes first.
benchmarks=${BENCHMARKS:-200}
left=$((total - SECONDS))
[ "$benchmarks" -gt "$left" ] && benchmarks=$left
margin=$((benchmarks > 60 ? 40 : benchmarks * 2 / 3))
step benchmarks "$benchmarks" "$python" -P -m pytest -p no:cacheprovider --benchmark-only -q \
    --budget=$((benchmarks - margin)) --save-results="$out/$name.json" \
    benchmarks/test_host_cost.py benchmarks/test_gpu.py

for recipe in sagan/demo pona/sample pose3d/demo caption/demo multiscale/sample; do
    step training "${TRAINING:-30}" "$python" -P -m fastpose train "$recipe" run.device=cuda run.max_minutes=0.2 \
        --out "$work/run"
done

# Not a step: it is due however little time is left, and whole.
status=0
report=$("$python" benchmarks/gpu_report.py "$out/$name.json" "$out/$name.png" 2>&1) || status=$?
note report "$status"
{
    printf '%s\n' "$report"
    printf '%s\n' "${verdicts[@]}"
    echo "benchmarks/gpu.sh: $SECONDS s; logs, $name.json and $name.png are in $out"
} | tee "$out/summary.log"

case "${verdicts[*]}" in
    *failed:* | *"out of time:"*) exit 1 ;;
esac

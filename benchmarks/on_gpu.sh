#!/usr/bin/env bash
# Everything that is to be shown on a CUDA machine, in under 9 minutes:
#
#     benchmarks/on_gpu.sh [FOLDER]        (default benchmarks/results/gpu)
#
# Needs a python3 (or $PYTHON) with numpy, cupy, numba, pillow, scikit-image, matplotlib, typer, rich, safetensors,
# jinja2, threadpoolctl, pytest, hypothesis, mpmath and pytest-benchmark (pip install '.[cuda12,test]' brings them all);
# xlogreg itself need not be installed. nvidia-smi, compute-sanitizer, jax and torch take part if they are there. Each
# step has a limit of its own, writes its output to a file in FOLDER, and is tried whatever became of the others; the
# peers' results are kept after each size. Exit code 0: all steps passed; otherwise the number of those that did not.
set -uo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
folder=${1:-benchmarks/results/gpu}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
# No test may be skipped for want of a GPU here.
export XLOGREG_NEED_GPU=1
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" XLA_PYTHON_CLIENT_PREALLOCATE=false PYTHONUNBUFFERED=1
failed=()
: >"$folder/steps.tsv"

# step NAME SECONDS COMMAND...
step() {
    local name=$1 limit=$2 start=$SECONDS
    shift 2
    echo "== $name: $*"
    timeout --kill-after=5 "$limit" "$@" >"$folder/$name.txt" 2>&1
    local code=$?
    tail -n 12 "$folder/$name.txt"
    printf '%s\t%d\t%d s\n' "$name" "$code" "$((SECONDS - start))" | tee -a "$folder/steps.tsv"
    [ "$code" = 0 ] || failed+=("$name")
}

step needs 20 "$python" -c "import numpy, cupy, numba, PIL, skimage, matplotlib, typer, rich, safetensors, jinja2, \
threadpoolctl, pytest, hypothesis, mpmath, pytest_benchmark"
if command -v nvidia-smi >/dev/null; then
    step machine 5 nvidia-smi
fi
# The first to compile, for the processor and the GPU.
step doctor 80 "$python" -m xlogreg doctor
step tests 90 "$python" -m pytest tests/test_{gpu,elementary,exact,logistic,options,same_bits}.py -m gpu -q \
    -p no:cacheprovider --continue-on-collection-errors -k "not sanitizer"
# Results of an earlier run would be in the way.
rm -rf "$folder/reproduce"
step reproduce 25 "$python" -m xlogreg reproduce --device gpu --out "$folder/reproduce"
step peers 165 "$python" -m xlogreg benchmark --peers --device gpu --pictures 1900 --pictures 50000 --rounds 3 \
    --out "$folder"
step throughput 35 "$python" -m pytest benchmarks/test_throughput.py -m gpu -q -p no:cacheprovider \
    --benchmark-json="$folder/throughput.json"
step memcheck 35 "$python" -m pytest tests/test_gpu.py -m gpu -q -rs -p no:cacheprovider -k "sanitizer and memcheck"
step racecheck 30 "$python" -m pytest tests/test_gpu.py -m gpu -q -rs -p no:cacheprovider -k "sanitizer and racecheck"

echo
if [ ${#failed[@]} -gt 0 ]; then
    echo "Not passed: ${failed[*]}. Their output is in $folder."
else
    echo "All steps passed. Results are in $folder."
fi
exit ${#failed[@]}

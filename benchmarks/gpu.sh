#!/usr/bin/env bash
# On a machine with a GPU: the tests marked cuda, the benchmarks, and a short table, within ten minutes. Without a GPU
# the same script skips those tests and measures the CPU: a dry run. Needs the test extra; the package itself is used
# from here, installed or not.
#
#   benchmarks/gpu.sh [FOLDER]    # keeps tests.log, benchmarks.log and benchmarks.json there; default: a new one
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:-$(mktemp -d)}
mkdir -p "$out"
python=${PYTHON:-python3}
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
"$python" -c 'import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else "no CUDA device: a dry run on the CPU")' || exit 1

timeout --signal=INT --kill-after=15 180 "$python" -m pytest -q -m cuda >"$out/tests.log" 2>&1
tests=$?
grep -v "^SKIPPED" "$out/tests.log" | tail -n 40

timeout --signal=INT --kill-after=15 360 "$python" -m pytest benchmarks -q --benchmark-enable \
  --benchmark-json="$out/benchmarks.json" >"$out/benchmarks.log" 2>&1
benchmarks=$?
[ "$benchmarks" = 0 ] || tail -n 40 "$out/benchmarks.log"
[ ! -s "$out/benchmarks.json" ] || "$python" benchmarks/table.py "$out/benchmarks.json"
echo "tests: exit status $tests; benchmarks: exit status $benchmarks; logs in $out"
[ "$tests" = 0 ] && [ "$benchmarks" = 0 ]

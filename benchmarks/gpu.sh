#!/usr/bin/env bash
# On a machine with a GPU: the tests marked cuda, then every benchmark, a table of results, and which goals were reached,
# within ten minutes. Without a GPU those tests skip and the smallest settings are measured on the CPU: a dry run. Needs
# the test extra (OpenCV is one of the loaders that composition is held against); the package itself is used from here,
# installed or not.
#
#   benchmarks/gpu.sh [FOLDER]    # keeps logs and JSON there; default: a new one
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:-$(mktemp -d)}
mkdir -p "$out"
python=${PYTHON:-python3}
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
SECONDS=0 # bash counts from here
deadline=580
failed=()

cuda=$("$python" -c 'import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else "")') || exit 1
settings=()
[ -n "$cuda" ] || settings=(-m "not full")
echo "${cuda:-no CUDA device: a dry run on the CPU}"

run() { # NAME SECONDS ARGUMENTS...: pytest, for at most so long; what was measured until then is kept
  local name=$1 most=$2 left=$((deadline - SECONDS))
  shift 2
  [ "$most" -le "$left" ] || most=$left
  if [ "$most" -lt 5 ]; then
    failed+=("$name: no time left")
    return
  fi
  local start=$SECONDS status
  timeout --signal=INT --kill-after=10 "$most" "$python" -m pytest -q "$@" >"$out/$name.log" 2>&1
  status=$?
  echo "$name: exit status $status after $((SECONDS - start)) s"
  [ "$status" = 0 ] || { failed+=("$name: exit status $status") && tail -n 25 "$out/$name.log"; }
}

run tests 130 -m cuda
tests_say=${failed[*]:-all of which passed or were skipped for want of a GPU}
for piece in compose:230 step:130 floor:70 growth:90 attack:60 host:15 peers:50 compile:90; do
  name=${piece%:*}
  run "$name" "${piece#*:}" "benchmarks/test_$name.py" --benchmark-enable --benchmark-quiet \
    --benchmark-json="$out/$name.json" ${settings[@]+"${settings[@]}"}
done

found=()
for file in "$out"/*.json; do [ ! -s "$file" ] || found+=("$file"); done
if [ ${#found[@]} -gt 0 ]; then
  "$python" benchmarks/table.py "${found[@]}" | tee "$out/table.txt"
  "$python" benchmarks/goals.py "${found[@]}" | tee "$out/goals.txt"
fi
echo "  no wait for the device over a full step: a test marked cuda, $tests_say"
printf '%s\n' ${failed[@]+"${failed[@]}"}
echo "$SECONDS s; logs, JSON and table in $out"
[ ${#failed[@]} = 0 ]

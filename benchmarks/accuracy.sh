#!/usr/bin/env bash
# Trains and measures what the results page reports, one run after the other. Runs that are done are not repeated, and an
# interrupted one goes on where it stopped. Needs the folder named by KORNIA_CAG_DATA.
#
#   benchmarks/accuracy.sh [FOLDER]    # of the runs; default: runs. Reports go to benchmarks/results/
set -euo pipefail
cd "$(dirname "$0")/.."
data=${KORNIA_CAG_DATA:?the folder with objects/, contexts/ and real/}
runs=${1:-runs}
signs=(signs --objects "$data/objects/signs" --contexts "$data/contexts" --real "$data/real/gtsrb_dev.npz" --hold-back 0.2)
digits=(digits --objects "$data/objects/digits" --real "$data/real/mnist_dev.npz")

report() { # NAME FILE COMMAND...: keep a report beside the command that made it, without this machine's folders
  local name=$1 file=$2
  shift 2
  python3 - "$file" "benchmarks/results/accuracy_$name.json" "${*//$data\//}" <<'END'
import json, sys

source, target, command = sys.argv[1:]
with open(source) as file:
    made = json.load(file)
with open(target, "w") as file:
    json.dump({"command": command, **made}, file, indent=2)
    file.write("\n")
END
}

train() { # NAME ARGUMENTS...
  local name=$1 resume=()
  shift
  [ ! -f "$runs/$name/checkpoint.pt" ] || resume=(--resume)
  [ -f "$runs/$name/report.json" ] || kornia-cag train "$@" --compile --out "$runs/$name" ${resume[@]+"${resume[@]}"}
  report "$name" "$runs/$name/report.json" kornia-cag train "$@" --compile
}

attack() { # NAME ARGUMENTS...: of a model that is trained
  local name=$1
  shift
  [ -f "$runs/$name.json" ] || kornia-cag evaluate "$@" --json >"$runs/$name.json.partial"
  [ -f "$runs/$name.json" ] || mv "$runs/$name.json.partial" "$runs/$name.json"
  report "$name" "$runs/$name.json" kornia-cag evaluate "${@/#$runs/runs}"
}

for seed in 0 1 2; do train "digits-$seed" "${digits[@]}" --seed "$seed"; done
for seed in 0 1 2; do train "signs-short-$seed" "${signs[@]}" --images 100000 --seed "$seed"; done
train signs "${signs[@]}"
attack signs-context "$runs/signs" --attack context --objects "$data/objects/signs" --contexts "$data/contexts"
attack signs-pgd "$runs/signs" --attack pgd --real "$data/real/gtsrb_dev.npz"

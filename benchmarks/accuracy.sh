#!/usr/bin/env bash
# Trains and measures what the results page reports, one run after the other. Runs that are done are not repeated, and an
# interrupted one goes on where it stopped. Needs the folder named by KORNIA_CAG_DATA.
#
#   benchmarks/accuracy.sh [FOLDER]    # of the runs; default: runs. Reports go to benchmarks/results/
set -euo pipefail
data=$(realpath "${KORNIA_CAG_DATA:?the folder with objects/, contexts/ and real/}")
runs=${1:+$(realpath -m "$1")}
cd "$(dirname "$0")/.."
runs=${runs:-$PWD/runs}
mkdir -p "$runs"
signs=(signs --objects "$data/objects/signs" --contexts "$data/contexts" --real "$data/real/gtsrb_dev.npz" --hold-out 0.2)
digits=(digits --objects "$data/objects/digits" --real "$data/real/mnist_dev.npz")

plain() { # COMMAND...: as others would type it, without this machine's folders
  local command=${*//"$data/"/}
  printf '%s' "${command//"$runs/"/runs/}"
}

same() { # NAME COMMAND...: whether the result of this name was made so; another one is not taken for it
  local file=$runs/$1.command
  shift
  [ -f "$file" ] || plain "$@" >"$file"
  [ "$(plain "$@")" = "$(cat "$file")" ] && return
  echo "$file: made by another command; remove it and what it made" >&2
  exit 1
}

report() { # NAME FILE: keep a report beside the command that made it
  python3 - "$2" "benchmarks/results/accuracy_$1.json" "$(cat "$runs/$1.command")" <<'END'
import json, sys

source, target, command = sys.argv[1:]
with open(source) as file:
    made = json.load(file)
made.pop("sha256", None)  # of that file
with open(target, "w") as file:
    json.dump({"command": command, **made}, file, indent=2)
    file.write("\n")
END
}

train() { # NAME ARGUMENTS...
  local name=$1 resume=()
  shift
  same "$name" kornia-cag train "$@" --compile
  [ ! -f "$runs/$name/checkpoint.pt" ] || resume=(--resume)
  [ -f "$runs/$name/report.json" ] || kornia-cag train "$@" --compile --out "$runs/$name" ${resume[@]+"${resume[@]}"}
  report "$name" "$runs/$name/report.json"
}

demo() { # NAME ARGUMENTS...: as the README has it, not compiled; perhaps with the arithmetic of another processor
  local name=$1 as=${ONEDNN_MAX_CPU_ISA:+ONEDNN_MAX_CPU_ISA=$ONEDNN_MAX_CPU_ISA ATEN_CPU_CAPABILITY=$ATEN_CPU_CAPABILITY }
  shift
  same "$name" "${as}kornia-cag" train "$@"
  [ -f "$runs/$name/report.json" ] || kornia-cag train "$@" --out "$runs/$name"
  report "$name" "$runs/$name/report.json"
}

attack() { # NAME ARGUMENTS...: of a model that is trained
  local name=$1
  shift
  same "$name" kornia-cag evaluate "$@"
  [ -f "$runs/$name.json" ] || kornia-cag evaluate "$@" --json >"$runs/$name.json.partial"
  [ -f "$runs/$name.json" ] || mv "$runs/$name.json.partial" "$runs/$name.json"
  report "$name" "$runs/$name.json"
}

ablate() { # NAME ARGUMENTS...: a table and a plot lie beside the report
  local name=ablation-$1
  shift
  same "$name" kornia-cag ablate "$@"
  kornia-cag ablate "$@" --out "$runs/$name" --resume
  report "$name" "$runs/$name/ablation.json"
}

# What the table of results says
for seed in 0 1 2; do demo "demo-$seed" digits --images 60000 --seed "$seed"; done
ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 demo demo-avx2 digits --images 60000 --seed 0
for seed in 0 1 2; do train "digits-$seed" "${digits[@]}" --seed "$seed"; done
for seed in 0 1 2; do train "signs-short-$seed" "${signs[@]}" --images 100000 --seed "$seed"; done
train signs "${signs[@]}"
# Again with scenes as drawn: the long one with about as many images as in the same time, the short ones also with as many
train signs-longest "${signs[@]}" --images 1500000 --scene-attack none
for seed in 0 1 2; do train "signs-as-drawn-$seed" "${signs[@]}" --images 100000 --scene-attack none --seed "$seed"; done
for seed in 0 1 2; do train "signs-longer-$seed" "${signs[@]}" --images 160000 --scene-attack none --seed "$seed"; done
python3 benchmarks/photo_digits.py "$data/real/mnist_dev.npz" "$data/contexts" "$runs/photo_digits.npz"
train photo-digits photo-digits --objects "$data/objects/digits" --contexts "$data/contexts" --hold-out 0.2 \
  --real "$runs/photo_digits.npz"

# A context that changes without bound: the hardened recipe beside the same without chain and attack
hardened=("${signs[@]}")
hardened[0]=hardened-signs
train hardened-signs "${hardened[@]}"
train plain-signs "${hardened[@]}" --no-chain --no-attack
unseen=(--attack context --objects "$data/objects/signs" --contexts "$data/contexts" --count 215
  --eps 0 0.0314 0.251 1)
for name in hardened-signs plain-signs; do attack "$name-context" "$runs/$name" "${unseen[@]}"; done
attack hardened-signs-context-100 "$runs/hardened-signs" "${unseen[@]:0:8}" --eps 1 --attack-steps 100

# What each ingredient gives, on a small budget
ablate signs "${signs[@]:0:7}" --images 20000 \
  --only paper recipe chain photographs light low perspective local refinement
ablate digits "${digits[@]}" --images 20000 \
  --only paper recipe chain perspective elastic holes thickness maps

# Pictures of the results page
kornia-cag evaluate "$runs/signs" --real "$data/real/gtsrb_dev.npz" --errors docs/signs-errors.png >/dev/null
kornia-cag evaluate "$runs/digits-0" --real "$data/real/mnist_dev.npz" --errors docs/digits-errors.png >/dev/null
kornia-cag preview photo-digits --objects "$data/objects/digits" --contexts "$data/contexts" --rows 2 --columns 24 \
  --out docs/photo-digits.png >/dev/null
cp "$runs/ablation-signs/ablation.svg" docs/ablation-signs.svg
cp "$runs/ablation-digits/ablation.svg" docs/ablation-digits.svg
python3 - <<'END'
import json
from pathlib import Path

from kornia_cag.command.plots import draw_curves

names = {"hardened-signs": "hardened", "plain-signs": "without chain and attack"}
curves = {what: json.loads(Path(f"benchmarks/results/accuracy_{name}-context.json").read_text())
          for name, what in names.items()}
draw_curves(curves, Path("docs/context.svg"), title="composites of signs whose context alone changes")
END

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
  local name=$1 file=$2 command
  shift 2
  command=${*//$data\//}
  python3 - "$file" "benchmarks/results/accuracy_$name.json" "${command//$runs/runs}" <<'END'
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
  report "$name" "$runs/$name.json" kornia-cag evaluate "$@"
}

ablate() { # NAME ARGUMENTS...: rows by which seeds; a table and a plot lie beside the report
  local name=$1
  shift
  kornia-cag ablate "$@" --out "$runs/ablation-$name" --resume
  report "ablation-$name" "$runs/ablation-$name/ablation.json" kornia-cag ablate "$@"
}

# What the table of results says
for seed in 0 1 2; do train "digits-$seed" "${digits[@]}" --seed "$seed"; done
for seed in 0 1 2; do train "signs-short-$seed" "${signs[@]}" --images 100000 --seed "$seed"; done
train signs "${signs[@]}"
[ -f "$runs/photo_digits.npz" ] || python3 benchmarks/photo_digits.py "$data/real/mnist_dev.npz" "$data/contexts" "$runs/photo_digits.npz"
train photo-digits photo-digits --objects "$data/objects/digits" --contexts "$data/contexts" --hold-back 0.2 \
  --real "$runs/photo_digits.npz"

# A context that changes without bound: the hardened recipe beside the same without chain and attack
hardened=("${signs[@]}")
hardened[0]=hardened-signs
train hardened-signs "${hardened[@]}"
train plain-signs "${hardened[@]}" --no-chain --no-attack
unseen=(--attack context --objects "$data/objects/signs" --contexts "$data/contexts" --count 301)
for name in hardened-signs plain-signs; do attack "$name-context" "$runs/$name" "${unseen[@]}"; done

# What each ingredient gives, on a small budget
ablate signs "${signs[@]:0:7}" --images 20000 \
  --only paper recipe chain photographs light low perspective local refinement
ablate digits "${digits[@]}" --images 20000 \
  --only paper recipe chain perspective turn elastic holes thickness maps refinement

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

from kornia_cag.plots import draw_curves

names = {"hardened-signs": "hardened", "plain-signs": "without chain and attack"}
curves = {what: json.loads(Path(f"benchmarks/results/accuracy_{name}-context.json").read_text())
          for name, what in names.items()}
draw_curves(curves, Path("docs/context.svg"), title="composites of signs whose context alone changes")
END

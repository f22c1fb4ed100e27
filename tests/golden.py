"""Golden checksums: what every recipe, attack, chain and dtype composes, to the bit, in eager mode.

``python tests/golden.py`` adds the checksums of this kind of processor to ``golden.json``; with ``--check`` it only
says which differ. Rounding depends on the vector instructions in use, so checksums stand under a fingerprint of a few
operations; a processor without checksums of its own is held to the rounded numbers beside them.
"""

import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from conftest import make_contexts, make_objects
from torch import Tensor, nn

from kornia_cag import PGD, Batch, CAGCollate, ContextChain, PairSampler, Ramp, SceneRange
from kornia_cag.adversary.scenes import ScenePGD
from kornia_cag.adversary.worst import WorstOf
from kornia_cag.core.randomness import sample_keys, uniforms
from kornia_cag.loading.confusion import HardPairing
from kornia_cag.training.recipes import RECIPES

FILE = Path(__file__).with_name("golden.json")
BATCHES, SIZE = 3, 5

ATTACKS = {
    "none": None,
    "linf": PGD(eps=0.1, eps_object=0.02, steps=2, fraction=0.7),
    "l2": PGD(eps=2.0, eps_min=0.5, steps=2, norm="l2", momentum=0.5, target="random"),
}
SCENES = {
    "none": None,
    "gradient": ScenePGD(steps=2, fraction=0.6),
    "worst": WorstOf(k=3, fraction=0.6),
}
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "uint8": torch.uint8}


class Judge(nn.Module):
    """A fixed network of 5 classes: no convolution, whose rounding would differ from library to library."""

    def forward(self, images: Tensor) -> Tensor:
        keys = torch.arange(5, device=images.device) + 7
        looks = uniforms(keys, "judge", images[0].numel()).view(5, *images.shape[1:]) - 0.5
        return torch.stack([torch.sin((images.float() * look).sum(dim=(1, 2, 3))) for look in looks], dim=1) * 3


@dataclass(frozen=True)
class Case:
    """One way of composing."""

    name: str
    ranges: SceneRange
    size: int
    chain: str = "none"
    attack: str = "none"
    scenes: str = "none"
    dtype: torch.dtype = torch.float32
    strength: float | Ramp = 1.0


def cases() -> Iterator[Case]:
    """Recipes x chain x attack x attack on scenes in float32, and recipes x chain x attack in the other dtypes.

    Without those of detection, whose scenes have a layout, and ``synsign``, the scenes of ``signs`` with other edges.
    """
    for name, recipe in RECIPES.items():
        if recipe.detection is not None or name == "synsign":
            continue
        for chain in ("none", "chain") if recipe.chain(5) is None else ("none", "chain", "pairing"):
            for attack in ATTACKS:
                for scenes in SCENES:
                    yield Case(f"{name} {chain} {attack} {scenes}", recipe.ranges, recipe.size, chain, attack, scenes)
                for kind, dtype in DTYPES.items():
                    if dtype.is_floating_point or attack == "none":
                        yield Case(f"{name} {chain} {attack} {kind}", recipe.ranges, recipe.size, chain, attack,
                                   dtype=dtype)  # fmt: skip
        yield Case(f"{name} ramp", recipe.ranges, recipe.size, "chain", strength=Ramp(start=0, stop=3))
        jpeg = replace(recipe.ranges, camera=replace(recipe.ranges.camera, jpeg=(30.0, 90.0)))
        yield Case(f"{name} jpeg", jpeg, recipe.size, "chain")


def batches(case: Case) -> Iterator[Batch]:
    """A few batches of a case, one after the other."""
    objects = make_objects().with_thickness([-1, 1])
    chain = None
    if case.chain != "none":
        pairing = HardPairing(len(objects.classes)) if case.chain == "pairing" else None
        chain = ContextChain(0.3, pairing=pairing)
    collate = CAGCollate(
        objects, make_contexts(), case.size, ranges=case.ranges, chain=chain, model=Judge(), returns="batch",
        adversaries=tuple(stage for stage in (SCENES[case.scenes], ATTACKS[case.attack]) if stage is not None),
        dtype=case.dtype, strength=case.strength,
    )  # fmt: skip
    sampler = PairSampler(objects.labels, 7, batch_size=SIZE, samples_per_class=4, seed=11)
    sampler.set_epoch(1)
    for rows, _ in zip(sampler, range(BATCHES), strict=False):
        yield collate(rows)


def checksum(*tensors: Tensor) -> str:
    """Of the bits, in the order of the indices."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.detach().contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:16]


def record(case: Case) -> dict[str, Any]:
    """The checksum of all batches of a case, and rounded means for processors that round otherwise."""
    made = list(batches(case))
    tensors = [getattr(batch, name) for batch in made for name in ("images", "clean", "masks", "boxes", "labels")]
    means = [mean for batch in made for mean in batch.clean.float().mean(dim=(1, 2, 3)).tolist()]
    return {"bits": checksum(*tensors), "means": [round(mean, 3) for mean in means]}


def fingerprint() -> str:
    """How this processor, and the libraries that torch runs on, round."""
    keys = sample_keys(torch.zeros(9, dtype=torch.int64), torch.zeros(9, dtype=torch.int64), torch.arange(9))
    x = uniforms(keys, "probe", 399).reshape(1, 9, 19, 21)
    weight = uniforms(keys, "weight", 49).reshape(9, 1, 7, 7)
    found = [torch.nn.functional.conv2d(x, weight, groups=9), x.sum(dim=(2, 3)), x.mean(dim=1)]
    found += [function(x) for function in (torch.sin, torch.cos, torch.exp, torch.log, torch.log1p, torch.tan)]
    found += [torch.nn.functional.interpolate(x, scale_factor=0.3, mode="area"), x.softmax(dim=-1), x.sqrt(), x**-3]
    grid = uniforms(keys, "grid", 98).reshape(1, 9, 49, 2) * 3 - 1.5
    found.append(torch.nn.functional.grid_sample(x, grid, align_corners=False))
    return checksum(*found)


def main() -> None:
    """Write, or check, the checksums of this processor."""
    torch.set_num_threads(1)
    said = json.loads(FILE.read_text()) if FILE.exists() else {"means": {}, "bits": {}}
    mine, bits = fingerprint(), {}
    for case in cases():
        found = record(case)
        bits[case.name] = found["bits"]
        said["means"].setdefault(case.name, found["means"])
    old = said["bits"].get(mine, {})
    apart = sorted(name for name in bits if old.get(name) != bits[name])
    print(f"{torch.backends.cpu.get_cpu_capability()}, fingerprint {mine}: {len(bits)} cases, {len(apart)} differ")
    print("\n".join(apart[:40]))
    if "--check" not in sys.argv:
        said["bits"][mine] = bits
        FILE.write_text(json.dumps(said, indent=0, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()

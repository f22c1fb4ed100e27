"""A trained network as a file for other programs: ONNX, or a program of torch.export, compared before it is written."""

import copy
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

import kornia_cag
from kornia_cag.banks.contexts import ContextBank
from kornia_cag.banks.objects import ObjectBank
from kornia_cag.banks.pictures import check_path
from kornia_cag.core.checks import InputError, check_choice, check_pixels, check_tensor, fail
from kornia_cag.core.memory import check_memory, no_memory
from kornia_cag.core.storage import check_place, write_bytes
from kornia_cag.evaluation.prepared import LONGEST, SQUARE, Fit, at_once, check_finite
from kornia_cag.evaluation.robustness import composites
from kornia_cag.training.network import Trained
from kornia_cag.training.prediction import SEEN, SMALLER
from kornia_cag.training.recipe import Recipe

Format = Literal["onnx", "torch"]
ENDINGS: dict[str, Format] = {".onnx": "onnx", ".pt2": "torch"}
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
OPSET = 20  # of ONNX; ONNX Runtime 1.17 and later read it
ALIKE = 1e-3  # largest difference of a logit
MADE = 24  # bytes per pixel of a composite to compare on, at least
ABOUT = "kornia_cag.json"  # the extra file in a program of torch.export
PREPARED: dict[Fit, str] = {
    "squash": "Resize the whole picture to a square, bilinear with antialiasing, whatever its shape.",
    "cover": "Resize square views of the picture, bilinear with antialiasing; of each class take the highest logit. "
    f"Views are as wide as the short side. Up to {SQUARE}:1 there is one, centred; from there to {LONGEST}:1 they lie "
    "evenly from end to end of the long side, at most half a view apart.",
}

Run = Callable[[Float[Tensor, "b 3 s s"]], Tensor]


class Logits(nn.Module):
    """What is exported: images ``(b, 3, s, s)`` in [0, 1] to float32 logits, with the names of both."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b k"]:
        """The logits of a batch."""
        logits: Tensor = self.network(images).float()
        return logits


def export_network(
    trained: Trained,
    path: str | Path,
    *,
    format: Format | None = None,
    images: Float[Tensor, "n 3 s s"] | None = None,
) -> float:
    """Write a network to a file, for batches of any size, and return the largest difference of a logit.

    Whatever the network does to pictures is in the file, the average over moved copies as well; names of classes, the
    size and how to prepare pictures are in its metadata. The export is read back and compared before it gets its name:
    a file that says something else than the network is never there.

    Args:
        trained: what :func:`~kornia_cag.training.network.load_network` gave.
        path: the file to write or replace.
        format: ``"onnx"``, or ``"torch"`` for ``torch.export.load``; default: by the ending, ``.onnx`` or ``.pt2``.
        images: prepared pictures in [0, 1] to compare on; default: 64 composites of glyphs in the recipe's scenes.

    Raises:
        InputError: for a network that cannot be exported, or whose export says something else; without the packages
            that ONNX needs.
    """
    if trained.recipe.detection is not None:
        fail("network", "one that names pictures", "one that finds objects", "Export trained.network by torch.export.")
    place, size = check_path("path", path), trained.recipe.size
    format = _format(place, format)
    check_place(place)
    check_memory("network", 2, size, SEEN, SMALLER)
    if images is None:
        check_memory("network", 64, size, MADE, "Pass fewer of them as images=.")
        images = _made(trained.recipe)
    check_tensor("images", images, ("n", 3, size, size), torch.float32)
    check_pixels("images", images)
    network = Logits(copy.deepcopy(trained.network).cpu()).eval()
    with _quiet():
        program = _traced(network, images[:2].cpu())
        write = _onnx if format == "onnx" else _program
        data, run = write(program, _about(trained))
        difference = _compared(network, run, images)
    write_bytes(place, data)
    return difference


def _format(path: Path, format: Format | None) -> Format:
    if format is None:
        if path.suffix not in ENDINGS:
            fail("format", "onnx or torch, or a file that ends in .onnx or .pt2", f"none, and {str(path)!r}")
        format = ENDINGS[path.suffix]
    check_choice("format", format, ("onnx", "torch"))
    missing = [name for name in PACKAGES if format == "onnx" and find_spec(name) is None]
    if missing:
        fail("format", f"the packages {', '.join(PACKAGES)}", f"no {', '.join(missing)}",
             'Install what is missing: pip install "kornia_cag[export]".')  # fmt: skip
    return format


def _made(recipe: Recipe) -> Float[Tensor, "64 3 s s"]:
    """Composites in the recipe's scenes that need no file."""
    objects = ObjectBank.from_glyphs(recipe.classes or "0123456789", size=recipe.texels, device="cpu")
    contexts = ContextBank.procedural(recipe.kind, count=16, size=recipe.texels, device="cpu")
    return composites(objects, contexts, recipe.size, recipe.ranges, 64, seed=0).images


def _about(trained: Trained) -> dict[str, str]:
    recipe, size = trained.recipe, trained.recipe.size
    return {
        "classes": json.dumps(trained.classes),
        "size": str(size),
        "fit": recipe.fit,
        "recipe": recipe.name,
        "averaged": str(recipe.views),
        "input": f"images: float32 (batch, 3, {size}, {size}), RGB in [0, 1]. {PREPARED[recipe.fit]}",
        "output": f"logits: float32 (batch, {len(trained.classes)}); their softmax are probabilities of the classes.",
        "kornia_cag": kornia_cag.__version__,
    }


def _traced(network: nn.Module, images: Float[Tensor, "2 3 s s"]) -> torch.export.ExportedProgram:
    fix = "Its forward may not branch on values of tensors; a size of the batch is images.shape[0], not len(images)."
    with _refusing("a network that torch.export can trace", fix), torch.no_grad():
        images = torch.cat([images, images])[:2]  # of one picture, too: a batch of one would be taken as fixed
        return torch.export.export(network, (images,), dynamic_shapes={"images": {0: torch.export.Dim("batch", min=1)}})


def _program(program: torch.export.ExportedProgram, about: dict[str, str]) -> tuple[bytes, Run]:
    file = io.BytesIO()
    with _refusing("a network that torch.export can save"):
        torch.export.save(program, file, extra_files={ABOUT: json.dumps(about, indent=2)})
        file.seek(0)
        return file.getvalue(), torch.export.load(file).module()


def _onnx(program: torch.export.ExportedProgram, about: dict[str, str]) -> tuple[bytes, Run]:
    import onnx
    import onnxruntime

    with _refusing("a network that ONNX can express"):
        written: Any = torch.onnx.export(
            program, output_names=["logits"], opset_version=OPSET, dynamo=True, verbose=False
        )
        model = written.model_proto
        symbol = model.graph.input[0].type.tensor_type.shape.dim[0].dim_param
        for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
            for side in value.type.tensor_type.shape.dim:
                if side.dim_param:  # setting it would erase a number
                    side.dim_param = side.dim_param.replace(symbol, "batch")
        onnx.helper.set_model_props(model, about)
        data = model.SerializeToString()
        session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])

    def run(images: Float[Tensor, "b 3 s s"]) -> Tensor:
        return torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])

    return data, run


@torch.no_grad()
def _compared(network: nn.Module, run: Run, images: Float[Tensor, "n 3 s s"]) -> float:
    """The largest difference of a logit over pictures, in batches of two sizes.

    Raises:
        InputError: if it is too large, or a class is another.
    """
    worst, others = 0.0, 0
    for part in (images[:1], *images.split(at_once(64, images.shape[-1]))):
        wanted, got = network(part.cpu()), run(part.cpu().contiguous())
        check_finite("network", wanted)
        worst = max(float((wanted - got).abs().max()), worst)  # in this order NaN stays
        others += int((wanted.argmax(dim=1) != got.argmax(dim=1)).sum())
    if others or not worst <= ALIKE:
        fail("network", f"an export with the same classes, and logits within {ALIKE:g}",
             f"{others} other classes on {len(images):,} pictures, and logits off by up to {worst:.2g}",
             "Export it in the other format.")  # fmt: skip
    return worst


@contextmanager
def _refusing(expected: str, fix: str = "") -> Iterator[None]:
    """Turn whatever torch raises into one line about the network."""
    try:
        yield
    except (InputError, MemoryError, OSError):
        raise
    except Exception as error:
        if no_memory(error):
            raise
        said = next((line for line in str(error).splitlines() if line.strip()), "no reason given").strip()
        fail("network", expected, f"{type(error).__name__}: {said[:300].rstrip('.')}", fix)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's remarks on itself, which say nothing about the network."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.fx.experimental.symbolic_shapes")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):  # a trace that fails prints its graph
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

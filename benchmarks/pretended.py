"""A pretended GPU: what inductor and Triton make of a program for an H100 or H200, on a machine that has none.

Torch's CUDA build compiles for a GPU without a driver, if it is told what it would find there: fake tensors on ``cuda``
have shapes and no values, inductor and Triton are given the properties of an H100, and ptxas comes with Triton. Nothing
can be launched. For that the insides of torch (2.12) are replaced here, and nowhere else.
"""

import contextlib
import io
import re
import sys
import tempfile
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.overrides import TorchFunctionMode

from kornia_cag import ContextBank, ObjectBank, SceneRange
from kornia_cag.core.compiling import any_batch, options
from kornia_cag.scenes.composer import Composer
from kornia_cag.scenes.earlier import Earlier
from kornia_cag.scenes.programs import apart, composed

H100 = types.SimpleNamespace(
    name="NVIDIA H100 80GB HBM3", major=9, minor=0, total_memory=85 * 10**9, multi_processor_count=132, warp_size=32,
    max_threads_per_multi_processor=2048, max_threads_per_block=1024, regs_per_multiprocessor=65536,
    shared_memory_per_block=49152, shared_memory_per_block_optin=232448, shared_memory_per_multiprocessor=233472,
    L2_cache_size=50 << 20, gcnArchName="",
)  # fmt: skip
NAMED = re.compile(r"(\w+) = async_compile\.triton\('[^']+', '''(.*?)''', device_str='cuda'", re.DOTALL)


@dataclass(frozen=True)
class Program:
    """What inductor made of a batch's program: its code, and the bytes that it says the kernels access."""

    code: str
    accessed: int

    @property
    def launches(self) -> int:
        """Kernels of a batch: Triton's, and torch's own."""
        called = self.code.rpartition("def call(")[2]
        lines = [line for line in called.split("\n") if not line.lstrip().startswith("#")]
        return sum(bool(re.match(r"\s+(triton_\w+\.run\(|extern_kernels\.\w+\(|.*= torch\.ops\.aten\.(?!view))", line))
                   for line in lines)  # fmt: skip


@dataclass(frozen=True)
class Kernel:
    """What ptxas says of one kernel in one of the shapes that inductor tries: threads, and elements of each."""

    name: str
    elements: int
    warps: int
    lines: int
    registers: int
    stack: int
    spilled: int
    seconds: float


def missing() -> str | None:
    """What is not there to compile for a GPU."""
    if torch.version.cuda is None:
        return "torch's CUDA build"
    try:
        import triton  # noqa: F401
    except ImportError:
        return "Triton"
    return None


def inductor_program(ranges: SceneRange, size: int, batch: int) -> Program:
    """Compile one batch's program, with a chain and without targets, as :class:`Programs` does, up to Triton's code.

    But images are returned: what is written into an argument, inductor counts as read, too. Nor do views access it.
    """
    found: list[Program] = []
    texels = 64 if size <= 64 else 256
    objects, contexts = ObjectBank.from_glyphs("0123456789", size=texels), ContextBank.procedural(count=8, size=texels)
    objects = objects.with_thickness((1,))
    torch._dynamo.reset()
    with _fake_tensors(), patch("torch._inductor.fx_passes.joint_graph.UniformValueConstantFolder", _folder()):

        def here(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> torch.Tensor:
            return torch.empty(shape, dtype=dtype, device="cuda")

        atlases = [here(bank.pyramid.atlas.shape, torch.uint8) for bank in (objects, contexts)]
        objects = replace(objects, pyramid=replace(objects.pyramid, atlas=atlases[0]),
                          labels=here(objects.labels.shape, torch.int64))  # fmt: skip
        contexts = ContextBank(replace(contexts.pyramid, atlas=atlases[1]))
        composer = Composer(objects, contexts, (size, size), ranges, warn=False)
        rows = here((batch, 6), torch.int64)
        table, keys = rows[:, :-1], rows[:, -1]  # as Rows.to puts them there
        earlier = Earlier(here((batch, 3, size, size)), here((batch, 1), torch.int64), 0.171)
        into = apart(composer, here((batch, 3, size, size)))
        any_batch(table, keys, atlases[1], earlier.images, earlier.labels, *into.values())
        from torch._inductor.compile_fx import compile_fx

        backend = partial(compile_fx, inner_compile=partial(_lowered, found), config_patches=options(rows.device))
        plan = composer.plan(1)
        compiled = torch.compile(composed, fullgraph=True, backend=backend)
        with torch.no_grad(), contextlib.suppress(_NotLaunched):
            compiled(composer, 1.0, table, keys, plan, earlier, into, False, False)
    return found[0]


class _NotLaunched(Exception):
    """Compiled, and not run."""


@contextlib.contextmanager
def _fake_tensors() -> Iterator[None]:
    state = torch.zeros(16, dtype=torch.uint8)
    mode = FakeTensorMode(shape_env=ShapeEnv())

    @cache
    def constant(maker: str, arguments: tuple[Any, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        with mode:
            shape = getattr(torch, maker)(*arguments, dtype=dtype, device="cpu").shape
            return torch.empty(shape, dtype=dtype, device=device)

    with (
        patch("kornia_cag.core.compiling._made", constant),
        patch("torch.cuda.get_rng_state", lambda *_: state), patch("torch.cuda.set_rng_state", lambda *_: None),
        mode,
    ):  # fmt: skip
        yield


def _folder() -> type:
    """Inductor's folder of constants, which computes them on the device: here on the CPU."""
    from torch._inductor.fx_passes import joint_graph

    class OnCpu(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            return func(*args, **kwargs | ({"device": "cpu"} if "device" in kwargs else {}))

    class Folder(joint_graph.UniformValueConstantFolder):
        def _add_peephole_patterns(self) -> None:
            with OnCpu():
                super()._add_peephole_patterns()

        def _deduce_value(self, node: Any) -> Any:
            with OnCpu():
                return super()._deduce_value(node)

    return Folder


@contextlib.contextmanager
def pretending() -> Iterator[None]:
    """Inside, torch, inductor and Triton find an H100."""
    import triton
    from torch._dynamo.device_interface import CudaInterface
    from triton.backends.compiler import GPUTarget

    def always(value: Any) -> Callable[..., Any]:
        return lambda *_, **__: value

    driver = types.SimpleNamespace(
        get_current_target=always(GPUTarget("cuda", 90, 32)), get_current_device=always(0),
        get_active_torch_device=always(torch.device("cuda", 0)),
    )  # fmt: skip
    cuda = {
        "is_available": True, "device_count": 1, "current_device": 0, "get_device_capability": (9, 0),
        "get_device_properties": H100, "_get_device_properties": H100, "_lazy_init": None, "synchronize": None,
        "set_device": None, "_exchange_device": 0, "_maybe_exchange_device": 0,
    }  # fmt: skip
    interface = {"is_available": True, "current_device": 0, "synchronize": None, "get_device_properties": H100}
    worker = {"get_device_properties": H100, "current_device": 0}
    with contextlib.ExitStack() as stack:
        for owner, values in ((torch.cuda, cuda), (CudaInterface, interface), (CudaInterface.Worker, worker)):
            for name, value in values.items():
                whole = always(value) if owner is torch.cuda else staticmethod(always(value))
                stack.enter_context(patch.object(owner, name, whole, create=True))
        stack.enter_context(patch("torch._C._cuda_getCurrentRawStream", always(0), create=True))
        for place in ("utils._triton", "_inductor.scheduler"):
            stack.enter_context(patch(f"torch.{place}.has_triton", always(True), create=True))
        triton.runtime.driver.set_active(driver)  # and left so: there is no other
        yield


def _lowered(found: list[Program], graph_module: Any, inputs: Any, **_: Any) -> Callable[..., Any]:
    """Inductor's own steps from a graph to code, without loading what came out."""
    from torch._inductor import compile_fx
    from torch._inductor.debug import DebugContext
    from torch._inductor.graph import GraphLowering
    from torch._inductor.virtualized import V

    compile_fx.view_to_reshape(graph_module)
    with torch.no_grad():
        mode = compile_fx.fake_tensor_prop(graph_module, inputs)
    compile_fx._recursive_record_original_output_strides(graph_module)
    with pretending(), V.set_fake_mode(mode), V.set_debug_handler(DebugContext()):
        compile_fx._recursive_post_grad_passes(graph_module, is_inference=True)
        shapes = graph_module.shape_env or compile_fx.shape_env_from_inputs(inputs)
        graph = GraphLowering(graph_module, example_inputs=inputs, shape_env=shapes, is_inference=True)
        graph.freeze_runtime_asserts()
        with V.set_graph_handler(graph):
            graph.run(*inputs)
            code = graph.codegen()[0]
            counts = [(str(getattr(node.node, "op_overload", "")), node.get_read_write_buffers_sizes())
                      for node in graph.scheduler.nodes]  # fmt: skip
            found.append(Program(code.value, sum(count for name, count in counts if not name.startswith("aten.view"))))

    def launch(*_: Any) -> None:
        raise _NotLaunched

    return launch


def assembled(program: Program) -> Iterator[Kernel]:
    """Every kernel of a program through ptxas for sm_90, in each shape that inductor tries on the device."""
    import triton

    with pretending(), tempfile.TemporaryDirectory() as folder, triton.knobs.cache.scope(), \
            triton.knobs.nvidia.scope(), triton.knobs.compilation.scope():  # fmt: skip
        triton.knobs.cache.dir, triton.knobs.nvidia.dump_ptxas_log = folder, True
        triton.knobs.compilation.always_compile = True
        for number, (name, body) in enumerate(NAMED.findall(program.code)):
            path = Path(folder, f"kernel{number}.py")  # a kernel's name may be too long for a file's
            path.write_text(body.replace("triton_helpers.set_driver_to_gpu()", ""))
            spec = spec_from_file_location(name, path)
            module = module_from_spec(spec)
            sys.modules[name] = module
            spec.loader.exec_module(module)
            tuner = next(value for value in vars(module).values() if hasattr(value, "configs"))
            for config in tuner.configs:
                yield _kernel(name, tuner, config)


def _kernel(name: str, tuner: Any, config: Any) -> Kernel:
    import triton
    from triton.backends.compiler import GPUTarget

    signature, names = dict(tuner.triton_meta["signature"]), tuner.fn.arg_names
    constants = {**tuner.triton_meta.get("constants", {}), **config.kwargs}
    signature.update({argument: "constexpr" for argument in names if argument in constants})
    places = {(names.index(argument),): value for argument, value in constants.items() if argument in names}
    source = triton.compiler.ASTSource(tuner.fn, signature, places, tuner.triton_meta["configs"][0])
    shape = {"num_warps": config.num_warps, "num_stages": config.num_stages}
    log = io.StringIO()
    with contextlib.redirect_stdout(log):
        made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=shape)
    said = log.getvalue()

    def number(pattern: str) -> float:
        return sum(map(float, re.findall(pattern, said)))

    block = 1
    for key, value in config.kwargs.items():
        block *= value if key.endswith("BLOCK") else 1
    return Kernel(name, max(1, block // (32 * config.num_warps)), config.num_warps, made.asm["ptx"].count("\n"),
                  int(number(r"Used (\d+) registers")), int(number(r"(\d+) bytes stack frame")),
                  int(number(r"(\d+) bytes spill stores")), number(r"Compile time = ([\d.]+) ms") / 1e3)  # fmt: skip

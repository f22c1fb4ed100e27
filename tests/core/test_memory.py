import pickle
import sys
import threading

import numpy as np
import pytest
import torch

from kornia_cag import InputError
from kornia_cag.core import memory
from kornia_cag.core.memory import Memory

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(memory, "LARGE", 1000)


def test_a_block_is_used_again_once_nobody_holds_it():
    lender = Memory()
    one = lender.empty((10, 100), torch.float32, CPU)
    place = one.data_ptr()
    one[:] = 1
    assert lender.empty((10, 100), torch.float32, CPU).data_ptr() != place
    part = one[3:4, :2]  # a view is enough
    del one
    other = lender.empty((10, 100), torch.float32, CPU)
    assert other.data_ptr() != place
    other[:] = 2
    assert (part == 1).all()
    array = part.numpy()
    del part
    assert lender.empty((10, 100), torch.float32, CPU).data_ptr() != place  # NumPy holds it as well
    assert (array == 1).all()
    del array
    again = [lender.empty((5, 200), torch.float32, CPU) for _ in range(2)]
    assert place in {tensor.data_ptr() for tensor in again}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.uint8])
def test_shapes_and_dtypes(dtype):
    lender = Memory()
    for shape in ((7, 3, 33, 31), (2, 3, 1, 1), (0, 3, 5, 5)):
        made = lender.empty(shape, dtype, CPU)
        assert (made.shape, made.dtype) == (torch.Size(shape), dtype)
        assert made.is_contiguous()


def test_a_smaller_batch_takes_a_part_and_unused_blocks_go():
    lender = Memory()
    for rows in (100, 60, 100, 7, 100):
        lender.empty((rows, 100), torch.uint8, CPU)
        assert len(lender._blocks) <= 1
    kept = [lender.empty((100, 100), torch.uint8, CPU) for _ in range(3)]
    assert len({tensor.data_ptr() for tensor in kept}) == len(lender._blocks) == 3
    del kept
    lender.empty((100, 100), torch.uint8, CPU)
    assert len(lender._blocks) == 1


def test_threads_are_never_lent_the_same_block():
    lender, interval = Memory(), sys.getswitchinterval()
    held = [lender.empty((1000,), torch.uint8, CPU) for _ in range(50)]
    seen = []

    def take():
        for _ in range(300):
            mine = lender.empty((1000,), torch.uint8, CPU)
            mine[:] = threading.get_ident() % 251
            seen.append(bool((mine == threading.get_ident() % 251).all()))

    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=take) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert len(held) == 50
    assert len(seen) == 1200
    assert all(seen)


def test_a_copy_for_another_process_starts_empty():
    lender = Memory()
    held = lender.empty((100, 100), torch.uint8, CPU)
    assert isinstance(held.numpy(), np.ndarray)
    assert pickle.loads(pickle.dumps(lender))._blocks == []


def test_what_could_not_be_had_is_told_in_gigabytes():
    torchs = ("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
              "allocate 12884901888 bytes. Error code 12 (Cannot allocate memory)\nframe #0")  # fmt: skip
    assert memory.told(RuntimeError(torchs)) == "out of memory: 12.9 GB more cannot be had"
    assert memory.told(MemoryError()) == "out of memory"
    assert memory.told(torch.OutOfMemoryError("CUDA out of memory. Tried\nGPU")) == "CUDA out of memory. Tried"


def test_a_batch_that_cannot_fit_is_refused(monkeypatch):
    monkeypatch.setattr(memory, "machine_memory", lambda: 2_000_000_000)
    memory.check_memory("size", 2, 1000, 1000, "Less.")
    with pytest.raises(InputError) as error:
        memory.check_memory("size", 3, 1000, 1000, "Less.")
    assert str(error.value) == ("size: expected a batch that fits this machine's 2 GB of memory, got 3 images of "
                                "1000 x 1000 pixels, which take 3 GB or more. Less.")  # fmt: skip

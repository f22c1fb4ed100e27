import itertools
import os
import subprocess
import sys

import torch

from kornia_cag.core.precision import autocast_dtype


def test_autocast_only_where_the_hardware_multiplies_bfloat16(device, monkeypatch):
    assert autocast_dtype(device) in (None, torch.bfloat16)
    assert autocast_dtype(torch.device("meta")) is None
    for native, allowed in itertools.product((True, False), repeat=2):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda native=native: native, raising=False)
        monkeypatch.setattr("kornia_cag.core.precision._allowed_bfloat16", lambda allowed=allowed: allowed)
        assert autocast_dtype(torch.device("cpu")) is (torch.bfloat16 if native and allowed else None)
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported")
    assert autocast_dtype(torch.device("cpu")) is None


def test_bfloat16_can_be_forbidden():
    code = "import torch, kornia_cag.core.precision as m; print(m.autocast_dtype(torch.device('cpu')))"
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout == "None\n"

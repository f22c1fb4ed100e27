import tomllib
from pathlib import Path

import kornia_cag
from kornia_cag.training.provenance import hardware, versions


def test_the_version_is_that_of_the_project():
    project = tomllib.loads((Path(kornia_cag.__file__).parent.parent / "pyproject.toml").read_text())["project"]
    assert versions()["kornia_cag"] == kornia_cag.__version__ == project["version"]


def test_hardware_has_a_name(device):
    assert len(hardware(device)) > 3

"""The site builds without a warning, and whatever is public has its place on it; no link of it leads nowhere."""

import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest
from bs4 import BeautifulSoup

import kornia_cag
from kornia_cag.command import usage
from kornia_cag.training.recipes import RECIPES

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """All pages of the site, parsed, by path."""
    out = tmp_path_factory.mktemp("site")
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "--keep-going",
        "-q",
        "-E",
        "-d",
        out / "doctrees",
        "docs",
        out / "html",
    ]
    build = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}, capture_output=True,
                           text=True, timeout=600)  # fmt: skip
    assert (build.returncode, build.stdout, build.stderr) == (0, "", "")
    pages = (path for path in sorted((out / "html").rglob("*.html")) if "_static" not in path.parts)
    return {path: BeautifulSoup(path.read_text(), "html.parser") for path in pages}


def page(site, name):
    (found,) = (soup for path, soup in site.items() if path.as_posix().endswith(f"/html/{name}.html"))
    return found


def test_no_local_link_is_broken(site):
    anchors = {path: {tag["id"] for tag in soup.find_all(id=True)} for path, soup in site.items()}
    links = [(path, tag[name]) for path, soup in site.items() for name in ("href", "src")
             for tag in soup.find_all(**{name: True})]  # fmt: skip
    assert len(links) > 1000
    broken = []
    for path, link in links:
        address, anchor = urldefrag(link)
        if ":" in address.partition("/")[0] or address.startswith("//"):
            continue  # elsewhere
        target = (path.parent / unquote(address).partition("?")[0]).resolve() if address else path
        if not target.is_file() or (anchor and target in anchors and unquote(anchor) not in anchors[target]):
            broken.append(f"{path.name}: {link}")
    assert broken == []


def test_every_public_name_is_in_the_reference(site):
    shown = {
        tag["id"] for path, soup in site.items() if path.parent.name == "reference" for tag in soup.find_all(id=True)
    }
    assert [name for name in kornia_cag.__all__ if f"kornia_cag.{name}" not in shown] == []


def test_every_option_of_the_command_is_in_the_reference(site):
    text = page(site, "reference/command").get_text()
    (group,) = (action.choices for action in usage.parser()._actions if isinstance(action.choices, dict))
    options = {option for parser in group.values() for action in parser._actions for option in action.option_strings}
    assert len(options) > 30
    assert [option for option in options - {"-h", "--help"} if option not in text] == []


def test_every_recipe_is_in_the_reference(site):
    text = page(site, "reference/recipes").get_text()
    assert [name for name in RECIPES if f'name="{name}"' not in text] == []


def test_every_page_of_the_sources_is_on_the_site(site):
    html = next(iter(site)).parents[0]
    while html.name != "html":
        html = html.parent
    sources = {path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")}
    assert sources <= {path.relative_to(html) for path in site}


def test_every_picture_is_shown(site):
    shown = {Path(tag["src"]).name for soup in site.values() for tag in soup.find_all("img")}
    kept = {path.name for kind in ("png", "svg") for path in (ROOT / "docs").rglob(f"*.{kind}")}
    assert kept - shown == set()

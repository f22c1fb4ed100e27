"""The site builds without a warning, and whatever is public has its place on it; no link of it leads nowhere."""

import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import pages
import pytest

import kornia_cag
from kornia_cag.command import usage
from kornia_cag.training.recipes import RECIPES

DOCS = pages.ROOT / "docs"
BeautifulSoup = pytest.importorskip("bs4", reason="beautifulsoup4 is not installed").BeautifulSoup


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of the site, built from the sources."""
    out = tmp_path_factory.mktemp("site")
    sphinx = [sys.executable, "-B", "-m", "sphinx", "-q", "-W", "--keep-going", "-d", out / "read", DOCS, out / "html"]
    build = subprocess.run(sphinx, capture_output=True, text=True, timeout=600)
    assert (build.returncode, build.stdout, build.stderr) == (0, "", "")
    return out / "html"


@pytest.fixture(scope="module")
def site(folder):
    """All pages of the site, parsed, by their path in it."""
    found = {
        path.relative_to(folder): BeautifulSoup(path.read_text(), "html.parser") for path in folder.rglob("*.html")
    }
    return {path: page for path, page in found.items() if path.parts[0] != "_static"}


def test_no_local_link_is_broken(folder, site):
    anchors = {folder / path: {tag["id"] for tag in page.find_all(id=True)} for path, page in site.items()}
    links = [(path, tag[name]) for path, page in site.items() for name in ("href", "src")
             for tag in page.find_all(**{name: True}) if not urlsplit(tag[name]).netloc]  # fmt: skip
    assert len(links) > 1000
    broken = []
    for path, link in links:
        address, anchor = urldefrag(link)
        target = (folder / path.parent / unquote(urlsplit(address).path)).resolve() if address else folder / path
        if not target.is_file() or (anchor and unquote(anchor) not in anchors.get(target, [unquote(anchor)])):
            broken.append(f"{path}: {link}")
    assert broken == []


def test_every_public_name_is_in_the_reference(site):
    ids = {tag["id"] for path, page in site.items() if path.parts[0] == "reference" for tag in page.find_all(id=True)}
    assert [name for name in kornia_cag.__all__ if f"kornia_cag.{name}" not in ids] == []


def test_every_option_of_the_command_is_in_the_reference(site):
    text = site[Path("reference/command.html")].get_text()
    parsers = pages.parsers(usage.parser()).values()
    options = {option for parser in parsers for action in parser._actions for option in action.option_strings}
    assert len(options) > 30
    assert [option for option in options - {"-h", "--help"} if option not in text] == []


def test_every_recipe_is_in_the_reference(site):
    text = site[Path("reference/recipes.html")].get_text()
    assert [name for name in RECIPES if f'name="{name}"' not in text] == []


def test_every_page_of_the_sources_is_on_the_site(site):
    assert {path.relative_to(DOCS).with_suffix(".html") for path in DOCS.rglob("*.md")} <= site.keys()


def test_every_picture_is_shown(site):
    shown = {Path(tag["src"]).name for page in site.values() for tag in page.find_all("img")}
    assert {path.name for kind in ("png", "svg") for path in DOCS.rglob(f"*.{kind}")} <= shown

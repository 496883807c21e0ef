"""The README shows what is there: tables, code, commands and files."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize(("name", "path"), re.findall(r"<!-- (\w+) of (\S+) -->", README))
def test_what_is_quoted_stands_in_its_file(name, path):
    quoted = re.search(rf"<!-- {name} of {re.escape(path)} -->\n+(.*?)\n*<!-- end -->", README, re.DOTALL)[1]
    quoted = re.sub(r"^```\w*\n|\n```$", "", quoted).strip()
    assert quoted
    assert quoted in (ROOT / path).read_text()


def test_quotes_are_there():
    assert len(re.findall(r"<!-- \w+ of \S+ -->", README)) >= 4


def test_make_targets_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:^    |`)make ([a-z-]+)", README, re.MULTILINE))
    assert named <= targets
    assert {"sweep", "test", "report", "figures"} <= named


def test_files_and_links_exist():
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / link).exists(), link
    for path in re.findall(r"^\| `([\w/.]+)`", README, re.MULTILINE):
        if "/" in path:
            assert (ROOT / path).exists(), path


def test_the_map_names_every_module():
    for module in (ROOT / "extrap").rglob("*.py"):
        name = module.relative_to(ROOT).as_posix()
        if module.name != "__init__.py" and module.parent.name == "extrap" and module.name != "errors.py":
            assert name in README, name

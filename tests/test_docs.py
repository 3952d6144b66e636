"""The pages are held to the code: every option is told of, every link leads somewhere, and the test
command of the README is the one that is run before a change is taken."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

from srrrs.config.option import Option
from srrrs.config.table import AGENT_OPTIONS, RELAY_OPTIONS

TOP: Final = Path(__file__).parent.parent
PAGES: Final = [TOP / "README.md", *sorted((TOP / "docs").glob("*.md"))]

_FENCED: Final = re.compile(r"^( *)```.*?^\1```$", re.MULTILINE | re.DOTALL)
_LINK: Final = re.compile(r"\[[^\]]*\]\(([^()\s]+)\)")
_HEADING: Final = re.compile(r"^#+ (.+)$", re.MULTILINE)
#: Rows `| `--name ... | default | ...` of the tables.
_ROW: Final = re.compile(r"^\| `--([a-z-]+)[^`]*` \| ([^|]*) \|", re.MULTILINE)


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return _FENCED.sub("", page.read_text("utf-8"))


def anchors(page: Path) -> set[str]:
    """What may stand behind ``#`` in a link to a page."""
    found = set()
    for heading in _HEADING.findall(prose(page)):
        plain = re.sub(r"[^\w\- ]", "", heading.lower())
        found.add(plain.replace(" ", "-"))
    return found


@pytest.mark.parametrize(
    ("name", "table"),
    [("relay.md", RELAY_OPTIONS), ("agent.md", AGENT_OPTIONS)],
    ids=["relay", "agent"],
)
def test_every_option_is_in_a_table_with_its_default(name: str, table: tuple[Option, ...]) -> None:
    """No option is missing, none is told of that is not there, and the defaults are the code's."""
    page = TOP / "docs" / name
    # Of several rows about one option the first is the one that describes it.
    rows = dict(reversed(_ROW.findall(page.read_text("utf-8"))))
    options = {option.name: option for option in table}
    assert set(rows) == set(options)
    for option in options.values():
        told = rows[option.name].strip().strip("`")
        if option.flag:
            assert told == "off"
        elif option.default is not None:
            assert told == option.default, option.name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    """To a file or folder of the repository, and to a heading where it names one."""
    for link in _LINK.findall(prose(page)):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert target.is_relative_to(TOP.resolve()), link
        if anchor:
            assert anchor in anchors(target), link


def test_the_readmes_test_command_is_what_is_run() -> None:
    """``.ci/run`` takes its command from the README, whole."""
    script = TOP / ".ci" / "run"
    if not script.exists():
        pytest.skip("not in a checkout")
    readme = (TOP / "README.md").read_text("utf-8")
    block = re.search(r"^Run the tests:\n\n```sh\n(.+)\n```$", readme, re.MULTILINE)
    assert block is not None
    command = block[1]
    text = script.read_text("utf-8")
    assert "command=$(grep -m 1 -F -e '-m pytest' README.md)" in text
    assert command == next(line for line in readme.splitlines() if "-m pytest" in line)
    for half in ('bash -euc "${command% && *}"', 'bash -euc "${command##* && }"'):
        assert half in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_hold_no_secret(page: Path) -> None:
    """No whole token, not even one that was revoked long ago."""
    assert not re.search(r"srrrs_[a-z2-7]{10}_[a-z2-7]{52}", page.read_text("utf-8"))

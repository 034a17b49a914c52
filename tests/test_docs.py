"""README and docs: links that lead somewhere, pages that can be found, and nothing too long to read."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = sorted((ROOT / "docs").glob("*.md"))

_LINK = re.compile(r"\]\(([^()\s]+)\)")
_LIST_ITEM = re.compile(r"\s*([*-]|\d+\.) ")


def without_code(page: Path) -> list[str]:
    """The lines of a page, those of blocks of code empty."""
    inside, lines = False, []
    for line in page.read_text(encoding="utf-8").splitlines():
        fence = line.lstrip().startswith("```")
        inside ^= fence
        lines.append("" if fence or inside else line)
    return lines


def links(page: Path) -> Iterator[tuple[Path, str]]:
    """The file and the heading, if any, of each link that does not lead to the web."""
    for target in _LINK.findall("\n".join(without_code(page))):
        if not target.startswith("https://"):
            name, _, heading = target.partition("#")
            yield (page.parent / name).resolve() if name else page, heading


def headings(page: Path) -> set[str]:
    """What links call the headings of a page."""
    titles = [line.lstrip("#") for line in without_code(page) if line.startswith("#")]
    return {re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-") for title in titles}


def paragraphs(page: Path) -> Iterator[list[str]]:
    """Lines that belong together; an item of a list is a paragraph, and a row of a table is one, too."""
    lines: list[str] = []
    for line in [*without_code(page), ""]:
        starts = not line.strip() or line.startswith(("#", "|", "<!--")) or _LIST_ITEM.match(line)
        if lines and (starts or lines[0].startswith(("#", "|", "<!--"))):
            yield lines
            lines = []
        lines += [line] if line.strip() else []


@pytest.mark.parametrize("page", [README, *PAGES], ids=lambda page: page.name)
def test_a_page_is_easy_to_read_and_its_links_lead_somewhere(page: Path) -> None:
    assert any(without_code(page))
    for file, heading in links(page):
        assert file.exists(), file
        assert not heading or heading in headings(file), f"{file}#{heading}"
    for lines in paragraphs(page):
        assert len(lines) <= 6, lines
        assert len(lines[0]) <= 120 or lines[0].startswith(("|", "![")), lines
        assert all(len(line) <= 120 for line in lines[1:]), lines


def test_the_readme_is_of_one_sitting_and_leads_to_every_page() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 200
    assert set(PAGES) <= {file for file, _ in links(README)}
    assert PAGES

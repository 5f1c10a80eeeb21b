"""Pages that are made before each build of what is elsewhere in the repository.

They are not part of it (docs/.gitignore): the reference of fields, the tables of results, the
notebooks, changelog and contributing guide. Only what changed is written, so that a second build is
quick.
"""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from config_page import config_page
from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
MADE = ("notebooks", "results", "project")  # folders of nothing else
LINK = re.compile(r"(\]\()(?!https?:|#|mailto:)([^)\s#]+)")
INTERVAL = re.compile(r"(?<=\d) (\[[+-][\d.]+), (?=[+-]\d)")
# Files of the repository that have a page.
PAGES = {
    "README.md": "index.md",
    "results": "results/index.md",
    "results/README.md": "results/index.md",
    "notebooks": "notebooks/index.md",
}
ORDER = (
    "quickstart",
    "losses_in_your_project",
    "your_own_data",
    "plm_explained",
    "gcl_two_stage",
    "dlsa_explained",
    "tpu_multi_host",
)
TUTORIALS = """# Notebooks

Those of the folder `notebooks/` of the repository.

{list}

```{{toctree}}
:hidden:

{names}
```
"""
RESULTS = """
## Tables

```{{toctree}}
:maxdepth: 1

{names}
```
"""


def page_of(path: Path) -> Path | None:
    """The page that shows a file of the repository, if there is one."""
    name = path.relative_to(ROOT).as_posix()
    if name in PAGES:
        return DOCS / PAGES[name]
    if path.is_relative_to(DOCS) and path.suffix == ".md":
        return path
    if path.name == "table.md" and path.parent.parent == ROOT / "results":
        return DOCS / f"results/{path.parent.name}.md"
    if path.parent == ROOT and path.name in ("CHANGELOG.md", "CONTRIBUTING.md"):
        return DOCS / f"project/{path.stem.lower()}.md"
    return DOCS / f"notebooks/{path.name}" if path.suffix == ".ipynb" else None


def moved(text: str, source: Path, target: Path) -> str:
    """A text whose relative links lead to pages, also when it is shown from another folder."""

    def link(found: re.Match[str]) -> str:
        there = (source.parent / found[2]).resolve()
        shown = page_of(there) if there.is_relative_to(ROOT) else None
        if shown is None and not there.exists():
            return found[0]
        shown = shown or there
        return found[1] + Path(os.path.relpath(shown, target.parent)).as_posix()

    return LINK.sub(link, text)


def title_of(notebook: dict) -> tuple[str, str]:
    """Title and first paragraph of a notebook."""
    cells = ("".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "markdown")
    blocks = [block.strip() for text in cells for block in text.split("\n\n")]
    title = next((b.lstrip("# ") for b in blocks if b.startswith("# ")), "")
    lead = next((b for b in blocks if b and b[0] not in "#[!<"), "")
    return title.splitlines()[0] if title else "", " ".join(lead.split())


def place(name: str) -> int:
    """Where a notebook comes among the others; new ones at the end."""
    return ORDER.index(name) if name in ORDER else len(ORDER)


def notebooks() -> Iterator[tuple[Path, str]]:
    """The notebooks, and a page that lists them."""
    found = sorted((ROOT / "notebooks").glob("*.ipynb"), key=lambda p: (place(p.stem), p.stem))
    items = []
    for path in found:
        target = DOCS / "notebooks" / path.name
        notebook = json.loads(path.read_text())
        title, lead = title_of(notebook)
        for cell in notebook["cells"]:
            if cell["cell_type"] == "markdown":
                cell["source"] = moved("".join(cell["source"]), path, target)
        items.append(f"- [{title or path.stem}]({path.name}): {lead}")
        yield target, json.dumps(notebook, indent=1)
    names = "\n".join(path.stem for path in found)
    yield DOCS / "notebooks/index.md", TUTORIALS.format(list="\n".join(items), names=names)


def results() -> Iterator[tuple[Path, str]]:
    """A page for each folder with a table, and the text about all of them."""
    tables = sorted((ROOT / "results").glob("*/table.md"))
    for path in tables:
        target = DOCS / "results" / f"{path.parent.name}.md"
        pictures = "".join(
            f"\n![{png.stem}](../../results/{path.parent.name}/{png.name})\n"
            for png in sorted(path.parent.glob("*.png"))
        )
        text = moved(path.read_text(), path, target)
        yield target, f"# results/{path.parent.name}\n\n{text}\n{pictures}"
    source, target = ROOT / "results/README.md", DOCS / "results/index.md"
    names = "\n".join(path.parent.name for path in tables)
    yield target, moved(source.read_text(), source, target) + RESULTS.format(names=names)


def project() -> Iterator[tuple[Path, str]]:
    """Changelog and contributing guide, as far as there is one."""
    for name in ("CHANGELOG.md", "CONTRIBUTING.md"):
        source = ROOT / name
        if source.exists():
            target = page_of(source)
            yield target, moved(source.read_text(), source, target)
    lines = ("```{toctree}", ":maxdepth: 1", ":glob:", "", "c*", "```")
    yield DOCS / "project/index.md", "\n".join(("# The project", "", *lines, ""))


def made() -> dict[Path, str]:
    """All made pages."""
    pages = {DOCS / "reference/config.md": config_page()}
    for some in (notebooks(), results(), project()):
        pages |= dict(some)
    return pages


def write(app: Sphinx) -> None:
    """Writes the pages that changed, removes those of what is no longer there."""
    pages = made()
    for folder in MADE:
        for path in (DOCS / folder).glob("*"):
            if path.is_file() and path not in pages:
                path.unlink()
    for path, text in pages.items():
        path.parent.mkdir(exist_ok=True)
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def link_pages(app: Sphinx, name: str, content: list[str]) -> None:
    """Links to files of the repository lead to their pages; a number stays on one line."""
    path = Path(app.env.doc2path(name))
    content[0] = INTERVAL.sub("\xa0\\1,\xa0", content[0].replace(" ± ", "\xa0±\xa0"))
    if path.suffix == ".md" and path.relative_to(DOCS).parts[0] not in MADE:
        content[0] = moved(content[0], path, path)


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("builder-inited", write)
    app.connect("source-read", link_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

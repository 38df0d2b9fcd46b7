"""What MkDocs adds to this folder: notebooks as pages, the API, theory and figures of the clone."""

import pkgutil
import re
from pathlib import Path
from typing import Any

import latex2mathml.converter
import nbformat
from mkdocs.structure.files import File, Files
from nbconvert import MarkdownExporter

ROOT = Path(__file__).parents[1]
FORMULA = re.compile(r"\$\$(.+?)\$\$|(?<![\\$\w])\$([^$\n]+?)\$(?!\w)", re.DOTALL)
CODE = re.compile(r"(```.*?```|`[^`\n]*`)", re.DOTALL)
API = "jaxsens"  # what stands in the package itself is on a page of its own


def on_config(config: Any) -> Any:
    """Fill the parts of the navigation that follow from the clone."""
    notebooks = [{_title(path): f"theory/notebooks/{path.stem}.md"} for path in _notebooks()]
    parts = {
        "Theory": [{"In short, and the table": "theory/README.md"}, *notebooks],
        "API": [{name: f"api/{name}.md"} for name in _modules()],
    }
    for entry in config.nav:
        for name in parts.keys() & entry.keys():
            entry[name] = parts[name]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages and figures that stand elsewhere in the clone; make pages of notebooks."""

    def add(name: str, content: str | bytes) -> None:
        files.append(File.generated(config, name, content=content))

    for path in sorted((ROOT / "figures").glob("*.png")):
        files.append(File.generated(config, f"figures/{path.name}", abs_src_path=str(path)))
    for folder in ("figures", "theory"):
        add(f"{folder}/README.md", (ROOT / folder / "README.md").read_text(encoding="utf-8"))
    found = {"theory/notebooks": _notebooks(), "tutorials": _notebooks("docs/tutorials")}
    for folder, paths in found.items():
        for path in paths:
            text, pictures = converted(path)
            add(f"{folder}/{path.stem}.md", text)
            for name, content in pictures.items():
                add(f"{folder}/{name}", content)
            if folder != "tutorials":  # those are here already, as they are
                add(f"{folder}/{path.name}", path.read_bytes())
    for name in _modules():
        add(f"api/{name}.md", _api(name))
    return files


def converted(path: Path) -> tuple[str, dict[str, bytes]]:
    """A notebook as Markdown, formulas as MathML, and its pictures by name."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = with_formulas(cell.source)
    resources = {"unique_key": path.stem, "output_files_dir": path.stem}
    text, resources = MarkdownExporter().from_notebook_node(notebook, resources=resources)
    link = f"[This page as a notebook]({path.name})"
    return f"{text.rstrip()}\n\n{link}\n", resources["outputs"]


def with_formulas(text: str) -> str:
    """TeX between dollars as MathML, which a browser shows by itself; code is left alone."""

    def mathml(found: re.Match[str]) -> str:
        shown, inline = found.groups()
        made = latex2mathml.converter.convert(
            (shown or inline).strip(), display="block" if shown else "inline"
        )
        return f"\n\n<div>{made}</div>\n\n" if shown else made

    pieces = CODE.split(text)
    return "".join(x if i % 2 else FORMULA.sub(mathml, x) for i, x in enumerate(pieces))


def _notebooks(folder: str = "theory/notebooks") -> list[Path]:
    return sorted((ROOT / folder).glob("*.ipynb"))


def _title(path: Path) -> str:
    """The first heading of a notebook."""
    first = nbformat.read(path, as_version=4).cells[0].source
    return first.splitlines()[0].lstrip("# ")


def _modules() -> list[str]:
    """The public modules and packages of the library, each with a page."""
    names = [found.name for found in pkgutil.iter_modules([str(ROOT / API)])]
    return [API, *(f"{API}.{name}" for name in names if not name.startswith("_"))]


def _api(name: str) -> str:
    """A page: the package's own names one by one; all of any other, and the modules in it."""
    if name != API:
        parts = [f"::: {name}\n    options: {{show_root_heading: false}}"]
        inside = pkgutil.iter_modules([str(ROOT / name.replace(".", "/"))])
        parts += [f"::: {name}.{one.name}" for one in inside if not one.name.startswith("_")]
        return "\n\n".join([f"# {name}", *parts]) + "\n"
    text = (ROOT / API / "__init__.py").read_text(encoding="utf-8")
    public = re.findall(r"^from \S+ import (\w+) as \1$", text, re.MULTILINE)
    parts = [f"::: {API}.{one}" for one in public]
    return "\n\n".join([f"# {name}", *parts]) + "\n"

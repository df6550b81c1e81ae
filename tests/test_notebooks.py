"""Every notebook may be run twice in one kernel, and asks for the parameters that its first cell sets."""

import ast
import re
from pathlib import Path

import nbformat
import pytest

from srs import profiles

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = {path.stem: path for path in sorted(FOLDER.glob("*.ipynb"))}


def assigned(cells: list[str]) -> set[str]:
    """Every name that the cells bind at their top level, in loops and in with statements, too."""
    nodes = (node for cell in cells for node in ast.walk(ast.parse(cell)))
    return {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


@pytest.mark.parametrize("path", NOTEBOOKS.values(), ids=NOTEBOOKS)
def test_a_notebook_is_as_jupyterlab_writes_it_and_its_first_cells_run_again(path, monkeypatch):
    stored = nbformat.read(path, 4)
    assert nbformat.writes(stored) + "\n" == path.read_text()
    parameters, first, *rest = (cell.source for cell in stored.cells if cell.cell_type == "code")
    own, known, read = assigned([first, *rest]), {}, profiles.read_parameters
    assert not own & assigned([parameters]), "a parameter would not be what its cell says"
    monkeypatch.setattr(profiles, "read_parameters", lambda namespace, **names: known.update(names) or read(namespace, **names))
    namespace = {"In": ["", parameters, "# Parameters\nprofile = 'digits'\n", first]}
    for _ in range(2):
        exec(parameters, namespace)
        exec(first, namespace)
        namespace |= dict.fromkeys(own - {"p", "run"}, "a plain value")
    assert known.keys() == assigned([parameters])


def test_every_notebook_is_listed_in_the_readme():
    assert set(re.findall(r"\b(\d\d_[a-z_]+)\b", (FOLDER.parent / "README.md").read_text())) == NOTEBOOKS.keys()

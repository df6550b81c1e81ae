"""Every notebook may be run twice in one kernel, and asks for the parameters that its first cell sets."""

import ast
from pathlib import Path

import nbclient
import nbformat
import pytest

from srs import profiles

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = {path.stem: path for path in sorted(FOLDER.glob("*.ipynb"))}


def code(path: Path) -> list[str]:
    return [cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]


def assigned(cells: list[str]) -> set[str]:
    """Every name that the cells bind at their top level, in loops and in with statements, too."""
    nodes = (node for cell in cells for node in ast.walk(ast.parse(cell)))
    return {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


@pytest.fixture(autouse=True)
def by_hand(monkeypatch):
    """Nothing is run by make, and what a test sets does not stay."""
    monkeypatch.setenv("SRS_SCRATCH", "")
    monkeypatch.delenv("SRS_MAKE", raising=False)


@pytest.mark.parametrize("path", NOTEBOOKS.values(), ids=NOTEBOOKS)
def test_the_first_cells_run_again_beside_the_variables_of_all_the_others(path):
    parameters, first, *rest = code(path)
    own = assigned([first, *rest])
    assert not own & assigned([parameters]), "a parameter would not be what its cell says"
    ran = [parameters, "# Parameters\nprofile = 'digits'\n", first, *rest]
    namespace = {"In": ["", *ran[:3]]}
    exec(parameters, namespace)
    exec(first, namespace)
    namespace |= dict.fromkeys(own - {"p", "run"}, "a plain value") | {"In": ["", *ran, *ran], "startup": 1}
    exec(parameters, namespace)
    exec(first, namespace)
    assert namespace["profile"] == "digits"


@pytest.mark.parametrize("path", NOTEBOOKS.values(), ids=NOTEBOOKS)
def test_results_are_made_with_what_the_first_cell_says(path, monkeypatch):
    parameters, first, *_ = code(path)
    known, given = {}, {}
    monkeypatch.setattr(profiles, "read_parameters", lambda namespace, **names: known.update(names))
    exec(parameters, given)
    exec(first, given)
    assert known.keys() == assigned([parameters])
    assert all(value == given[name] for name, value in known.items() if not isinstance(value, type))
    free = {name for name, value in known.items() if isinstance(value, type)}
    # Where models are trained or not, make sees by what is there; 10 and 20 make no tables.
    assert free <= {"profile", "device", "workers", "scheduler", "training"} or path.stem in ("10_train", "20_certify")


def test_in_a_kernel_only_what_is_set_as_a_parameter_is_one(tmp_path, monkeypatch):
    startup = tmp_path / "profile_default/startup/00.py"
    startup.parent.mkdir(parents=True)
    startup.write_text("mine = 3")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    parameters, first, *_ = code(NOTEBOOKS["05_method"])
    right, wrong = "# Parameters\nprofile = 'smoke'\n", "# Parameters\nprofil = 'x'\n"
    sources = [parameters, right, first, "assert mine == 3\nlater = 4", parameters, first, wrong, first]
    notebook = nbformat.v4.new_notebook(cells=list(map(nbformat.v4.new_code_cell, sources)))
    cells = nbclient.NotebookClient(notebook, kernel_name="python3", allow_errors=True).execute(cwd=str(FOLDER.parent)).cells
    errors = [[output.evalue for output in cell.outputs if output.output_type == "error"] for cell in cells]
    assert errors[:-1] == [[]] * (len(cells) - 1)
    assert errors[-1] == ["parameter = 'profil' is refused: want one of profile"]

"""Copy every notebook with the parameters of the profile `smoke`, for nbval, which runs notebooks as they stand.

Each runs twice in its kernel, as for a reader who changes something: `python -m tests.prepare_notebooks FOLDER`
"""

import sys
from pathlib import Path

import nbformat
import papermill

SMALL = {
    "34_white_box": {"sigma": 0.5, "steps": 2},
    "40_soundness": {"certificates": 200},
    "41_speed": {"repetitions": 1, "copies": 20},
}


def main(folder: Path) -> None:
    """Write the parameterised copies; the order of their names is the order in which they depend on each other."""
    folder.mkdir(parents=True, exist_ok=True)
    for notebook in sorted(Path("notebooks").glob("*.ipynb")):
        parameters = {"profile": "smoke"} | SMALL.get(notebook.stem, {})
        copy = folder / notebook.name
        prepared = papermill.execute_notebook(notebook, copy, parameters, prepare_only=True, progress_bar=False)
        prepared.cells += [nbformat.v4.new_code_cell(cell.source) for cell in prepared.cells if cell.cell_type == "code"]
        nbformat.write(prepared, copy)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

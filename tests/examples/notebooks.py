"""Execute a notebook in a kernel of its own: ``python tests/examples/notebooks.py NOTEBOOK``.

Prints what each code cell printed, as JSON. With ``--write`` it is stored in the notebook, whose
outputs `test_notebooks.py` compares with those of a new run.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import nbformat
from nbclient import NotebookClient


def printed(notebook: nbformat.NotebookNode) -> list[str]:
    """For each code cell the text that it prints; figures are left out.

    Raises:
        ValueError: An output is neither printed text nor a figure.
    """
    found = []
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        texts = []
        for output in cell.outputs:
            if output.output_type == "stream" and output.name == "stdout":
                texts.append(output.text)
            elif output.output_type != "display_data" or "image/png" not in output.data:
                raise ValueError(f"expected printed text or a figure; got {output}")
        found.append("".join(texts))
    return found


def executed(path: Path) -> nbformat.NotebookNode:
    """The notebook with the outputs of a new run."""
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    for cell in notebook.cells:
        cell.metadata.clear()  # times of execution
    # Versions of this machine, which say nothing about the notebook.
    notebook.metadata.language_info = {"name": "python"}
    return notebook


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("notebook", type=Path)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    notebook = executed(options.notebook)
    print(json.dumps(printed(notebook)))
    if options.write:
        nbformat.write(notebook, options.notebook)


if __name__ == "__main__":
    main()

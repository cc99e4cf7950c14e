"""What a front end receives: a mistake is a failed cell with one line, a bug keeps its traceback."""

import nbformat
from nbclient import NotebookClient

SETUP = """
import jupyter_gpt

class Session:
    def stop(self, name):
        return judge(name)

def judge(text):
    return 1 / 0

jupyter_gpt.gpt = Session()
%load_ext jupyter_gpt
"""
CELLS = (SETUP, "%%corpus tale --seeed 4\nstories: 1", "%%pretrain", "%gpt shw", "%gpt stop tale")


def test_mistakes_fail_in_one_line_and_bugs_in_full():
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    NotebookClient(notebook, timeout=120, allow_errors=True, kernel_name="python3").execute()
    setup, *cells = notebook.cells
    assert setup.outputs == []
    errors = []
    for cell in cells:
        [output] = cell.outputs
        assert output.output_type == "error"
        errors.append((output.ename, output.traceback))
    assert errors[:-1] == [
        ("GPTError", ["GPTError: %%corpus has no option --seeed (did you mean --seed?)"]),
        ("GPTError", ["GPTError: %%pretrain requires NAME: %%pretrain NAME [options]"]),
        ("GPTError", ["GPTError: %gpt has no verb shw (did you mean show?)"]),
    ]
    name, traceback = errors[-1]
    assert name == "ZeroDivisionError"
    assert "judge" in "\n".join(traceback)
    assert len(traceback) > 3

"""The scripts in a notebook, whose kernel has arguments, output and signals of its own."""

import os
import subprocess
import sys

import pytest
from jupyter_client.manager import start_new_kernel

from shell import ROOT


@pytest.fixture
def run_cell(tmp_path, monkeypatch):
    """Yield a function that runs a cell in a kernel and returns what it shows, errors too."""
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    manager, client = start_new_kernel(cwd=str(tmp_path))
    shown = []

    def show(message):
        content = message["content"]
        if message["msg_type"] == "stream":
            shown.append(content["text"])
        elif message["msg_type"] == "error":
            shown.append(f"{content['ename']}: {content['evalue']}\n")

    def run_cell(code):
        shown.clear()
        client.execute_interactive(code, output_hook=show, timeout=120)
        return "".join(shown)

    yield run_cell
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def test_the_scripts_run_in_a_notebook(folders, run_cell):
    script = f"%run {ROOT}/"
    own = f"--images {folders[0]} --masks {folders[1]}"
    shown = run_cell(f"{script}data_preprocessing.py {own}")
    assert "data/processed: 20 pairs" in shown
    assert f"then run: python {ROOT / 'train.py'}\n" in shown
    for mistake in ("train.py --data none", "evaluation.py none.png"):
        shown = run_cell(script + mistake)
        assert shown.startswith(f"{mistake.split()[0]}: none")
        assert shown.endswith("SystemExit: 2\n")
    # Imported, with none of the kernel's arguments
    run_cell(f"import sys; sys.path.insert(0, {str(ROOT)!r}); import evaluation, train")
    run_cell("import os; os.chdir('images')")
    for script in ("train", "evaluation"):
        assert "InputError: data/processed: no data set there yet" in run_cell(f"{script}.main()")
    # As while TensorFlow starts
    run_cell("from utils.command import hold_back_stderr")
    shown = run_cell("with hold_back_stderr() as read: os.write(2, b'noise'); print(read())")
    assert shown == "b'noise'\n"
    # The kernel can still be interrupted
    assert "default_int_handler" in run_cell("import signal; print(signal.getsignal(2))")


def test_a_notebooks_way_to_draw_is_not_asked_of_a_script():
    subprocess.run(
        [sys.executable, "-c", "from utils import drawing"],
        cwd=ROOT,
        env=os.environ | {"MPLBACKEND": "inline"},
        check=True,
    )

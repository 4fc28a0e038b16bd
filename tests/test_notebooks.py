"""Run every notebook through nbdev's own runner, so that its `#|` directives hold.

NB_FLAGS='slow dist browser' also runs the cells that carry these flags."""
import os
import sys

import pytest
from nbdev.config import get_config
from nbdev.doclinks import nbglob
from nbdev.test import test_nb as run_notebook

CFG = get_config()
NOTEBOOKS = sorted(nbglob(as_path=True))


def test_there_are_notebooks():
    assert len(NOTEBOOKS) > 10


@pytest.mark.parametrize('notebook', NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook(notebook):
    path = list(sys.path)
    ok, _ = run_notebook(notebook.absolute(), skip_flags=CFG.tst_flags.split(),
                         force_flags=os.environ.get('NB_FLAGS', '').split(), basepath=CFG.config_path)
    sys.path[:] = path
    assert ok, f'{notebook.name} failed: its traceback is in the captured stderr'

"""What a user meets first: the package's names, its one command, and pages in the forms they have."""
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def python(code, cwd=None):
    return subprocess.run([sys.executable, '-c', code], cwd=cwd, capture_output=True, text=True, timeout=300)


def test_bare_import_is_quick_and_needs_no_torch():
    took = []
    for _ in range(3):        # the best of three: other tests run beside this one
        r = python('import sys, time; t = time.perf_counter(); import nano_deepseek_ocr; '
                   'print(time.perf_counter() - t, *[m for m in ("torch", "numpy", "fastcore") if m in sys.modules])')
        assert r.returncode == 0, r.stderr
        seconds, *brought = r.stdout.split()
        assert not brought
        took.append(float(seconds))
    assert min(took) < .2


def test_its_names():
    import nano_deepseek_ocr
    from nano_deepseek_ocr import NanoDeepseekOCR, UserError, preset
    assert preset('nano').name == 'nano' and issubclass(UserError, ValueError) and NanoDeepseekOCR.from_pretrained
    assert {'NanoDeepseekOCR', 'preset', 'UserError', '__version__'} <= set(dir(nano_deepseek_ocr))
    with pytest.raises(AttributeError, match='no_such_name'): nano_deepseek_ocr.no_such_name


def test_types_and_command_are_packed():
    setup = (ROOT/'setup.py').read_text()
    assert (ROOT/'nano_deepseek_ocr/py.typed').is_file() and "'py.typed'" in setup
    assert 'nano-ocr={cfg[\'lib_path\']}.__main__:main' in setup


def test_help_needs_no_torch(tmp_path):
    r = python('import sys; sys.argv = ["nano-ocr", "--help"]; from nano_deepseek_ocr.__main__ import main; main(); '
               'assert "torch" not in sys.modules', tmp_path)
    assert r.returncode == 0, r.stderr
    for word in 'read', 'train', 'evaluate', 'bench', 'reads': assert f'  {word} ' in r.stdout


def test_read_as_json(tmp_path):
    from nano_deepseek_ocr.synth import page
    drawn = page(0, 1)['image']
    drawn.save(tmp_path/'two.pdf', save_all=True, append_images=[drawn])
    (tmp_path/'bad.png').write_text('no picture')
    r = subprocess.run([sys.executable, '-m', 'nano_deepseek_ocr', 'read', 'bad.png', 'two.pdf', '--pages', '1-2', '--json',
                        '--max-new-tokens', '6'], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert r.returncode == 1 and r.stderr.count('error: ') == 1 and 'Traceback' not in r.stderr, r.stderr
    bad, one, two = map(json.loads, r.stdout.splitlines())
    assert bad['source'] == 'bad.png' and 'bad.png' in bad['error'] and 'text' not in bad
    assert (one['source'], one['page'], two['page']) == ('two.pdf', 1, 2)
    assert list(one) == ['source', 'page', 'text', 'boxes', 'tokens', 'reason', 'seconds']
    assert (one['tokens'], one['reason'], one['boxes']) == (6, 'length', []) and one['seconds'] > 0
    assert one['text'] == two['text'] != ''

"""`python -m nano_deepseek_ocr.evaluate` as a user runs it."""
import json
import os
import subprocess
import sys

import pytest
from PIL import Image

PAGE = {'page_info': {'image_path': 'a.jpg', 'page_attribute': {'language': 'english', 'data_source': 'book'}},
        'layout_dets': [{'anno_id': 0, 'category_type': 'text_block', 'order': 1, 'text': 'Fish is fresh today.'}]}


def evaluate(cwd, *args, **env):
    return subprocess.run([sys.executable, '-m', 'nano_deepseek_ocr.evaluate', *map(str, args)], cwd=cwd, capture_output=True,
                          text=True, timeout=600, env={**os.environ, 'OMP_NUM_THREADS': '1', **env})


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    "An untrained model and two pages of OmniDocBench's form."
    from nano_deepseek_ocr.config import preset
    from nano_deepseek_ocr.model import NanoDeepseekOCR
    cwd = tmp_path_factory.mktemp('evaluate')
    NanoDeepseekOCR(preset('pico')).save_pretrained(cwd/'model')
    (cwd/'data'/'images').mkdir(parents=True)
    pages = [PAGE, {**PAGE, 'page_info': {'image_path': 'b.jpg', 'page_attribute': {}}}]
    (cwd/'data'/'OmniDocBench.json').write_text(json.dumps(pages))
    for n in 'ab': Image.new('RGB', (300, 200), 'white').save(cwd/'data'/'images'/f'{n}.jpg')
    return cwd


def test_two_ranks_read_and_rank_0_scores(saved):
    args = 'omnidocbench', 'data', '--model', 'model', '--max_new_tokens', 4, '--out', 'out'
    one = evaluate(saved, *args, RANK='1', WORLD_SIZE='2')
    assert one.returncode == 0 and not one.stdout.strip(), one.stderr[-2000:]
    assert [f.name for f in (saved/'out'/'predictions').iterdir()] == ['b.md']
    zero = evaluate(saved, *args, RANK='0', WORLD_SIZE='2')
    assert zero.returncode == 0, zero.stderr[-2000:]
    assert 'release unknown: 2 pages' in zero.stdout
    result = json.loads((saved/'out'/'omnidocbench.json').read_text())
    assert result['missing'] == [] and result['scores']['all']['pages'] == 2
    assert (saved/'out'/'omnidocbench.md').read_text().strip() in zero.stdout


def test_predictions_alone(saved):
    (saved/'read').mkdir()
    (saved/'read'/'a.md').write_text('Fish is fresh today.')
    r = evaluate(saved, 'omnidocbench', 'data', '--predictions', 'read', '--out', 'p')
    assert r.returncode == 0, r.stderr[-2000:]
    assert '| all | 2 | – | 0.500 |' in r.stdout and 'counted as empty' in r.stdout and 'b.jpg' in r.stdout


@pytest.mark.parametrize('args, words', [
    (['omnidocbench', 'none'], ['none', 'OmniDocBench.json']), (['curve', '--model', 'runs/none'], ['runs/none'])])
def test_bad_arguments_are_one_line(tmp_path, args, words):
    r = evaluate(tmp_path, *args)
    assert r.returncode != 0 and 'Traceback' not in r.stderr
    errors = [line for line in r.stderr.splitlines() if line.startswith('error: ')]
    assert len(errors) == 1 and all(w in errors[0] for w in words), r.stderr
    assert not (tmp_path/'runs').exists()

"""The command lines as a user runs them: in an empty folder, each in a process of its own."""
import json
import subprocess
import sys

import pytest
from PIL import Image


def run(cwd, *args, timeout=300):
    return subprocess.run([sys.executable, '-m', *map(str, args)], cwd=cwd, capture_output=True, text=True, timeout=timeout)


needs_stage1 = pytest.mark.xdist_group('stage1')   # one worker trains it, the same one uses it


@pytest.fixture(scope='session')
def stage1(tmp_path_factory):
    "A folder in which `train --stage 1` has run with nothing else said."
    cwd = tmp_path_factory.mktemp('stage1')
    return cwd, run(cwd, 'nano_deepseek_ocr.train', '--stage', 1)


@needs_stage1
def test_stage1_learns_the_ten_pages(stage1):
    cwd, r = stage1
    assert r.returncode == 0, r.stderr[-2000:]
    assert r.stdout.splitlines()[-1] == 'exact 10/10', r.stdout
    log = [json.loads(line) for line in (cwd/'runs/stage1/metrics.jsonl').read_text().splitlines()]
    assert {'step', 'loss', 'lr', 'samples_per_s', 'seconds'} <= set(log[0])
    assert log[-1]['vision_gain_first'] > 1 and log[-1]['cos_projector'] < .99


@needs_stage1
def test_sample_shows_the_same_answers(stage1):
    r = run(stage1[0], 'nano_deepseek_ocr.sample')
    assert r.returncode == 0, r.stderr[-2000:]
    assert r.stdout.count('EXPECTED') == r.stdout.count('GENERATED') == 10
    assert r.stdout.splitlines()[-1] == 'exact 10/10', r.stdout


@needs_stage1
def test_sample_reads_a_picture_and_an_earlier_step(stage1):
    cwd = stage1[0]
    from nano_deepseek_ocr.synth import overfit_pages
    page = overfit_pages()[0]
    page['image'].save(cwd/'page.png')
    r = run(cwd, 'nano_deepseek_ocr.sample', 'page.png', '--prompt', page['prompt'])
    assert r.returncode == 0, r.stderr[-2000:]
    assert page['answer'] in r.stdout
    steps = sorted(p.name for p in (cwd/'runs/stage1').glob('step_*'))
    r = run(cwd, 'nano_deepseek_ocr.sample', '--resume_step', int(steps[0][5:]))
    assert r.returncode == 0 and 'EXPECTED' in r.stdout


@needs_stage1
def test_stage2_starts_from_stage1(stage1):
    cwd = stage1[0]
    from safetensors.torch import load_file
    r = run(cwd, 'nano_deepseek_ocr.train', '--stage', 2, '--steps', 6)
    assert r.returncode == 0, r.stderr[-2000:]
    assert r.stdout.splitlines()[-1].startswith('exact ')
    one, two = (load_file(sorted((cwd/'runs'/s).glob('step_*'))[-1]/'model.safetensors') for s in ('stage1', 'stage2'))
    frozen = [k for k in one if k.startswith('deepencoder.sam_model.')]
    assert frozen and all(one[k].equal(two[k]) for k in frozen), 'stage 2 must leave SAM and compressor as they were'
    assert not one['deepencoder.projector.layers.weight'].equal(two['deepencoder.projector.layers.weight'])


GOOD = {'id': 'a', 'image': 'a.png', 'prompt': '<image>\nFree OCR.', 'answer': 'x'}
BAD_DATA = {
    'a missing file': ([{**GOOD, 'image': 'b.png'}], ['rows.json', 'row 0', '"image"', 'b.png']),
    'a missing field': ([GOOD, {k: v for k, v in GOOD.items() if k != 'answer'} | {'id': 'b'}], ['rows.json', 'row 1', '"answer"']),
    'an answer too long': ([{**GOOD, 'answer': 'word ' * 3000}], ['rows.json', 'row 0', '"answer"', '1024']),
    'an unreadable image': ([{**GOOD, 'image': 'text.png'}], ['text.png']),
    'not a list': ({}, ['rows.json', 'list']),
}


@pytest.mark.parametrize('case', BAD_DATA)
def test_bad_data_is_one_line(tmp_path, case):
    rows, words = BAD_DATA[case]
    Image.new('RGB', (20, 20)).save(tmp_path/'a.png')
    (tmp_path/'text.png').write_text('this is no picture')
    (tmp_path/'rows.json').write_text(json.dumps(rows))
    check_refusal(run(tmp_path, 'nano_deepseek_ocr.train', '--data', 'rows.json'), words)
    assert not (tmp_path/'runs').exists(), 'nothing may be written before the input is known to be good'


@pytest.mark.parametrize('args, words', [
    (['train', '--preset', 'huge'], ['huge', 'nano']), (['train', '--mode', 'poster'], ['poster', 'micro']),
    (['train', '--stage', '7'], ['7', '1']), (['train', '--steps', '0'], ['steps']), (['train', '--optimizer', 'sgd'], ['sgd', 'muon']),
    (['train', '--stage', '2'], ['runs/stage1', '--stage 1']), (['train', '--data', 'none.json'], ['none.json']),
    (['sample', '--run', 'runs/none'], ['runs/none']), (['sample', 'none.png', '--run', 'runs/none'], ['none'])])
def test_bad_arguments_are_one_line(tmp_path, args, words):
    check_refusal(run(tmp_path, f'nano_deepseek_ocr.{args[0]}', *args[1:]), words)
    assert not (tmp_path/'runs').exists()


def check_refusal(r, words):
    assert r.returncode != 0
    assert 'Traceback' not in r.stderr
    errors = [line for line in r.stderr.splitlines() if line.startswith('error: ')]
    assert len(errors) == 1, r.stderr
    for w in words: assert w in errors[0], errors[0]

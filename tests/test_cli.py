"""The command lines as a user runs them: in an empty folder, each in a process of its own."""
import importlib.util
import json
import runpy
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from PIL import Image


def run(cwd, *args, timeout=900):     # a net: on two quiet cores the longest takes two minutes
    return subprocess.run([sys.executable, '-m', *map(str, args)], cwd=cwd, capture_output=True, text=True, timeout=timeout)


@pytest.fixture
def run_here(tmp_path, monkeypatch, capsys):
    "The same within this process, for commands that refuse: most of a process's time would be the import of torch."
    def go(module, *args):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, 'argv', [module, *args])
        try: code = runpy.run_module(module, run_name='__main__', alter_sys=True) and 0
        except SystemExit as e: code = e.code
        out, err = capsys.readouterr()
        return SimpleNamespace(returncode=int(bool(code)), stdout=out, stderr=err + (code if isinstance(code, str) else ''))
    return go


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
    r = run(cwd, 'nano_deepseek_ocr.sample', 'page.png', '--run', 'runs/stage1', '--prompt', page['prompt'])
    assert r.returncode == 0, r.stderr[-2000:]
    assert page['answer'] in r.stdout
    steps = sorted(p.name for p in (cwd/'runs/stage1').glob('step_*'))
    r = run(cwd, 'nano_deepseek_ocr.sample', '--resume_step', int(steps[0][5:]))
    assert r.returncode == 0 and 'EXPECTED' in r.stdout


def test_sample_reads_a_page_it_has_never_seen(tmp_path):
    import numpy as np
    from rapidfuzz.distance import Levenshtein
    from nano_deepseek_ocr.letters import lettered
    pages = [lettered(np.random.default_rng(n), kind='word') for n in range(4)]
    for n, page in enumerate(pages): page['image'].save(tmp_path/f'{n}.png')
    r = run(tmp_path, 'nano_deepseek_ocr.sample', *(f'{n}.png' for n in range(4)), '--out', 'new/book.md')
    assert r.returncode == 0, r.stderr[-2000:]
    texts = [t.strip() for t in (tmp_path/'new/book.md').read_text().split('<--- Page Split --->')]
    wrong = sum(Levenshtein.distance(t, p['answer']) for t, p in zip(texts, pages, strict=True))
    assert wrong < .4 * sum(len(p['answer']) for p in pages), texts


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


def test_a_stopped_run_goes_on(tmp_path):
    args = ['--preset', 'pico', '--steps', '8', '--batch', '2', '--every', '5', '--pack', '--track', 'tensorboard']
    command = [sys.executable, '-m', 'nano_deepseek_ocr.train', *args]
    if not importlib.util.find_spec('tensorboard'):
        check_refusal(run(tmp_path, 'nano_deepseek_ocr.train', *args), ['nano_deepseek_ocr[tensorboard]'])
        command, args = command[:-2], args[:-2]
    p = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    metrics = tmp_path/'runs/stage1/metrics.jsonl'
    while p.poll() is None and not (metrics.is_file() and metrics.read_text()): time.sleep(.01)
    p.send_signal(signal.SIGTERM)
    out, err = p.communicate(timeout=900)
    assert p.returncode == 75, err[-2000:]
    assert 'stopped by a signal' in out
    done = len(metrics.read_text().splitlines())
    assert done < 8 and [d.name for d in metrics.parent.glob('step_*')] == [f'step_{done:06d}']
    check_refusal(run(tmp_path, 'nano_deepseek_ocr.train', '--preset', 'd20', '--resume'), ['--preset pico', 'd20', '--name'])
    r = run(tmp_path, 'nano_deepseek_ocr.train', '--resume', '--keep', 1, '--no-pack')
    assert r.returncode == 0, r.stderr[-2000:]
    assert 'changed since then: --keep 3 -> 1, --pack True -> False' in r.stdout, r.stdout
    assert f'going on from runs/stage1/step_{done:06d}' in r.stdout
    assert [json.loads(line)['step'] for line in metrics.read_text().splitlines()] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [d.name for d in metrics.parent.glob('step_*')] == ['step_000008']
    assert '--track' not in args or list(metrics.parent.glob('events.*'))


def test_the_plan_needs_nothing(tmp_path):
    r = run(tmp_path, 'nano_deepseek_ocr.train', '--preset', 'd20', '--stage', 2, '--dry_run')
    assert r.returncode == 0, r.stderr[-2000:]
    for words in ('962.5 M', 'sam             88.9 M   frozen', 'memory', 'schedule'): assert words in r.stdout, r.stdout
    assert not list(tmp_path.iterdir())


GOOD = {'id': 'a', 'image': 'a.png', 'prompt': '<image>\nFree OCR.', 'answer': 'x'}
BAD_DATA = {
    'a missing file': ([{**GOOD, 'image': 'b.png'}], ['rows.json', 'row 0', '"image"', 'b.png']),
    'a missing field': ([GOOD, {k: v for k, v in GOOD.items() if k != 'answer'} | {'id': 'b'}], ['rows.json', 'row 1', '"answer"']),
    'an answer too long': ([{**GOOD, 'answer': 'word ' * 3000}], ['rows.json', 'row 0', '"answer"', '1024']),
    'an unreadable image': ([{**GOOD, 'image': 'text.png'}], ['text.png']),
    'not a list': ({}, ['rows.json', 'list']),
}


@pytest.mark.parametrize('case', BAD_DATA)
def test_bad_data_is_one_line(tmp_path, case, run_here):
    rows, words = BAD_DATA[case]
    Image.new('RGB', (20, 20)).save(tmp_path/'a.png')
    (tmp_path/'text.png').write_text('this is no picture')
    (tmp_path/'rows.json').write_text(json.dumps(rows))
    check_refusal(run_here('nano_deepseek_ocr.train', '--data', 'rows.json'), words)
    assert not (tmp_path/'runs').exists(), 'nothing may be written before the input is known to be good'


@pytest.mark.parametrize('args, words', [
    (['train', '--preset', 'huge'], ['huge', 'nano']), (['train', '--mode', 'poster'], ['poster', 'micro']),
    (['train', '--stage', '7'], ['7', '1']), (['train', '--steps', '0'], ['steps']), (['train', '--optimizer', 'sgd'], ['sgd', 'muon']),
    (['train', '--shard', 'fsdp'], ['fsdp', 'torchrun']), (['train', '--batch', '3', '--accumulate', '2'], ['--batch 3', 'multiple of 2']),
    (['train', '--stage', '2'], ['runs/stage1', '--stage 1']), (['train', '--data', 'none.json'], ['none.json']),
    (['reads', '--stage', '3'], ['3', '0']), (['reads', '--stage', '1'], ['stage 0']),
    (['train', '--seed', '-1'], ['--seed', 'negative']), (['train', '--name', '..'], ['..', 'runs/']),
    (['sample', '--run', 'runs/none'], ['runs/none']), (['sample', 'none.png', '--run', 'runs/none'], ['none'])])
def test_bad_arguments_are_one_line(tmp_path, args, words, run_here):
    check_refusal(run_here(f'nano_deepseek_ocr.{args[0]}', *args[1:]), words)
    assert not (tmp_path/'runs').exists()


def test_the_package_alone_needs_no_torch(tmp_path):
    code = 'import sys, nano_deepseek_ocr as n; assert "torch" not in sys.modules, "torch"; n.preset, n.NanoDeepseekOCR'
    r = subprocess.run([sys.executable, '-c', code], cwd=tmp_path, capture_output=True, text=True)
    assert r.returncode == 0, r.stderr


def test_one_word_runs_each_command(run_here):
    assert run_here('nano_deepseek_ocr').returncode == 0
    check_refusal(run_here('nano_deepseek_ocr', 'write'), ['write', 'read', 'train'])
    check_refusal(run_here('nano_deepseek_ocr', 'read', 'none.png'), ['none.png'])
    check_refusal(run_here('nano_deepseek_ocr', 'train', '--steps', '0'), ['steps'])
    check_refusal(run_here('nano_deepseek_ocr', 'evaluate', 'omnidocbench', 'none'), ['OmniDocBench.json'])
    check_refusal(run_here('nano_deepseek_ocr', 'reads', '--stage', '3'), ['3', '0'])


def check_refusal(r, words):
    assert r.returncode != 0
    assert 'Traceback' not in r.stderr
    errors = [line for line in r.stderr.splitlines() if line.startswith('error: ')]
    assert len(errors) == 1, r.stderr
    for w in words: assert w in errors[0], errors[0]

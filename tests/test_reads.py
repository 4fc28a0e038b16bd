"""`python -m nano_deepseek_ocr.reads` as a user runs it: what it refuses, what it plans, and that it goes on."""
import json
import runpy
import signal
import subprocess
import sys
import time

import pytest

COMMAND = [sys.executable, '-m', 'nano_deepseek_ocr.reads']


@pytest.mark.parametrize('args, named', [
    (['--stage', '3'], ['no stage 3', '0 (the halves apart)']),
    (['--stage', '1'], ["'runs'", 'nano_deepseek_ocr.reads --stage 0']),
    (['--stage', '2'], ["'runs'", 'nano_deepseek_ocr.reads --stage 1']),
    (['--steps', '5'], ['--steps']),
])
def test_refused_in_one_line(args, named, tmp_path, monkeypatch, capsys):
    "Within this process: most of a process's time would be the import of torch."
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'argv', ['reads', *args])
    with pytest.raises(SystemExit) as e: runpy.run_module('nano_deepseek_ocr.reads', run_name='__main__', alter_sys=True)
    said = str(e.value.code) if isinstance(e.value.code, str) else capsys.readouterr().err
    assert e.value.code not in (0, None) and all(n in said.splitlines()[-1] for n in named), said


def test_stage_0_needs_one_process(monkeypatch):
    from nano_deepseek_ocr import reads
    monkeypatch.setattr(reads, 'ranks', lambda: (0, 2))
    for stage in None, 0:
        with pytest.raises(reads.UserError, match='without torchrun'): reads.run_recipe(stage)


def test_the_plan(tmp_path, monkeypatch, capsys):
    from nano_deepseek_ocr import reads
    monkeypatch.chdir(tmp_path)
    assert reads.run_recipe(dry_run=True) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"stage 0: runs/reads-eye, step 0 of {reads.STEPS['eye']}" and len(lines) == 5
    assert reads.run_recipe(2, dry_run=True) == 0
    assert capsys.readouterr().out.startswith('stage 2: runs/reads2, step 0 of ')
    assert not list(tmp_path.iterdir())                       # a plan leaves nothing behind


def test_a_signal_ends_it_with_75_and_it_goes_on(tmp_path, monkeypatch, capsys):
    "The first steps of the eye, with a code that has not been learned: that is another half minute."
    from safetensors.torch import save_file
    from nano_deepseek_ocr.config import preset
    from nano_deepseek_ocr.reads import PatchCode, run_recipe
    run = tmp_path/'runs'/'reads-eye'
    run.mkdir(parents=True)
    save_file(PatchCode(preset('reads').gpt.n_embd).state_dict(), tmp_path/'runs'/'reads-code.safetensors')
    log = run/'metrics.jsonl'
    p = subprocess.Popen([*COMMAND, '--stage', '0'], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        end = time.time() + 240
        while not (log.is_file() and log.read_text()) and p.poll() is None and time.time() < end: time.sleep(.2)
        p.send_signal(signal.SIGTERM)
        out = p.communicate(timeout=240)[0]
    finally: p.kill()
    assert p.returncode == 75, out
    assert out.splitlines()[-1] == 'stopped by a signal; go on with the same command'
    steps = [json.loads(line)['step'] for line in log.read_text().splitlines()]
    assert [f'step_{steps[-1]:06d}'] == [d.name for d in run.glob('step_*')]
    monkeypatch.chdir(tmp_path)
    run_recipe(0, dry_run=True)
    assert capsys.readouterr().out.startswith(f'stage 0: runs/reads-eye, step {steps[-1]} of ')

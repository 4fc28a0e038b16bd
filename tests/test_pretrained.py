"""Loaders against what the published files hold, not against our own names.

tests/data/released.json holds the names of the published index files (the source of each
stands there) and the shapes of transformers' classes, in a short form: {1-11} counts.
"""
import hashlib
import json
import math
import re
import struct
from itertools import product
from pathlib import Path

import pytest
import torch

from nano_deepseek_ocr.config import UserError, preset
from nano_deepseek_ocr.deepencoder import DeepEncoder
from nano_deepseek_ocr.model import NanoDeepseekOCR
from nano_deepseek_ocr.pretrained import load_deepseek_ocr, released_json

DATA = json.loads((Path(__file__).parent/'data/released.json').read_text())
UNSAVED = ['model.vision_model.embeddings.patch_embedding.weight',   # by transformers
           'model.vision_model.embeddings.position_ids']
ENCODER = 'model.sam_model.', 'model.vision_model.', 'model.projector.', 'model.image', 'model.view'


def counted(name):
    "The names that a short form stands for."
    def numbers(spans):
        ends = [list(map(int, s.split('-'))) for s in spans.split(',')]
        return [str(i) for a, *b in ends for i in range(a, (b or [a])[0] + 1)]
    parts = re.split(r'\{(.*?)\}', name)
    parts[1::2] = map(numbers, parts[1::2]); parts[::2] = [[p] for p in parts[::2]]
    return [''.join(p) for p in product(*parts)]


def listed(name):
    "Name -> shape of every tensor of a released model."
    short = DATA[DATA[name].get('same_as', name)]['shapes']
    return {full: shape for k, shape in short.items() for full in counted(k)}


def write_empty(path, shapes):
    "A safetensors file with these tensors, all of them zeros that take no room on the disk."
    head, at = {}, 0
    for name, shape in shapes.items():
        ids = name.endswith('position_ids')
        end = at + math.prod(shape) * (8 if ids else 2)
        head[name] = dict(dtype='I64' if ids else 'BF16', shape=shape, data_offsets=[at, end])
        at = end
    table = json.dumps(head).encode()
    table += b' ' * (-len(table) % 8)
    with open(path, 'wb') as f:
        f.write(struct.pack('<Q', len(table)) + table)
        f.truncate(f.tell() + at)


def said(name):
    "What the published config.json says: sizes twice, and what this decoder is."
    sizes = dict(hidden_size=1280, intermediate_size=6848, num_hidden_layers=12,
                 num_attention_heads=10, num_key_value_heads=10, n_routed_experts=64,
                 n_shared_experts=2, num_experts_per_tok=6, moe_intermediate_size=896,
                 first_k_dense_replace=1, vocab_size=129280, use_mla=False, topk_method='greedy',
                 max_position_embeddings=32768 if name == 'unlimited-ocr' else 8192)
    sam = dict(heads=12, layers=12, width=768, global_attn_indexes=[2, 5, 8, 11],
               downsample_channels=[512, 1024])              # of DeepSeek-OCR 2 it is not true
    eye = ({'qwen2-0-5b': dict(dim=896)} if name == 'deepseek-ocr-2' else
           {'clip-l-14-224': dict(heads=16, layers=24, width=1024, patch_size=14)})
    more = dict(sliding_window=128, sliding_window_size=128) if name == 'unlimited-ocr' else {}
    arch = {'deepseek-ocr': 'DeepseekOCR', 'unlimited-ocr': 'UnlimitedOCR',
            'deepseek-ocr-2': 'DeepseekOCR2'}[name]
    return dict(architectures=[f'{arch}ForCausalLM'], model_type='deepseek_vl_v2', **sizes,
                language_config=sizes, vision_config=dict(width={**eye, 'sam_vit_b': sam}), **more)


@pytest.mark.parametrize('name', [n for n in DATA if 'same_as' not in DATA[n]])
def test_the_list_is_the_index(name):
    "Names: a digest of the index's. Shapes: together they are its total size."
    d, shapes = DATA[name], listed(name)
    digest = hashlib.sha256('\n'.join(sorted(shapes)).encode()).hexdigest()
    assert (len(shapes), digest) == (d['tensors'], d['names_sha256'])
    ids = sum(math.prod(s) for k, s in shapes.items() if k.endswith('position_ids'))
    numbers = sum(map(math.prod, shapes.values())) - ids + d.get('counted_but_not_listed', 0)
    assert numbers * d['bytes_a_number'] + ids * 8 == d['total_size']


def theirs(name):
    "transformers' class at full size, without memory; its tensors under the original's names."
    import transformers as hf
    from transformers.core_model_loading import revert_weight_conversion
    two = name == 'deepseek-ocr-2'
    kind = hf.DeepseekOcr2ForConditionalGeneration if two else hf.UnlimitedOcrForConditionalGeneration
    config = released_json(preset(name))['config.json']
    with torch.device('meta'): model = kind(kind.config_class(**config))
    return {k: list(v.shape) for k, v in revert_weight_conversion(model, model.state_dict()).items()}


@pytest.mark.parametrize('name', DATA)
def test_shapes_are_those_of_transformers(name):
    want = {k: s for k, s in listed(name).items() if k not in UNSAVED}
    assert theirs(name) == want


@pytest.mark.parametrize('name', DATA)
def test_every_tensor_finds_its_place(tmp_path, name):
    "A file of the published names and shapes opens at full size, mapped, with nothing over."
    write_empty(tmp_path/'model-00001-of-000001.safetensors', listed(name))
    (tmp_path/'config.json').write_text(json.dumps(said(name)))
    model, ours = NanoDeepseekOCR.from_pretrained(tmp_path, 'cpu', torch.bfloat16), preset(name)
    for part in 'sam', 'compressor', 'clip', 'flow', 'moe', 'placeholder':
        assert getattr(model.cfg, part) == getattr(ours, part), part
    got = {k.partition('.')[2]: list(p.shape) for k, p in model.named_parameters()}
    want = {k.removeprefix('model.'): s for k, s in listed(name).items() if k != UNSAVED[1]}
    assert got == want
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize('name', DATA)
def test_a_published_name_that_ours_lacks_is_seen(tmp_path, name):
    more = {'model.layers.3.self_attn.q_proj.bias': [1280]}
    write_empty(tmp_path/'model.safetensors', listed(name) | more)
    (tmp_path/'config.json').write_text(json.dumps(said(name)))
    with pytest.raises(UserError, match='no place for: model.layers.3.self_attn.q_proj.bias'):
        NanoDeepseekOCR.from_pretrained(tmp_path, 'cpu', torch.bfloat16)


@pytest.fixture
def encoder():
    with torch.device('meta'): return DeepEncoder(preset('d20'))


def test_the_encoder_alone(tmp_path, encoder):
    own = {k: s for k, s in listed('deepseek-ocr').items() if k.startswith(ENCODER)}
    write_empty(tmp_path/'model.safetensors', listed('deepseek-ocr'))
    report = load_deepseek_ocr(encoder, tmp_path)
    assert report.tensors == len(own) - 1 and not report.at_init        # all but position_ids
    assert report.parameters == sum(map(math.prod, own.values())) - 257 == 401_372_160


def test_a_published_name_that_our_encoder_lacks_is_seen(tmp_path, encoder):
    write_empty(tmp_path/'model.safetensors',
                listed('deepseek-ocr') | {'model.sam_model.neck.4.weight': [256]})
    with pytest.raises(UserError, match='neck.4'): load_deepseek_ocr(encoder, tmp_path)

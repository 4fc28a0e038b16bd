"""Loaders against what the published files hold, not against our own names."""
import json
import math
import struct
from pathlib import Path

import pytest
import torch

LIST = json.loads((Path(__file__).parent/'data/deepseek_ocr.json').read_text())


def listed(part):
    "Name -> shape, layers and experts counted out."
    return {row['name'].replace('.N.', f'.{i}.').replace('.E.', f'.{e}.'): row['shape']
            for row in LIST[part] for i in row.get('N', [0]) for e in row.get('E', [0])}


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


@pytest.fixture
def encoder():
    from nano_deepseek_ocr.config import preset
    from nano_deepseek_ocr.deepencoder import DeepEncoder
    with torch.device('meta'): return DeepEncoder(preset('d20'))


def test_the_list_is_whole():
    everything = listed('encoder') | listed('rest')
    ids = everything['model.vision_model.embeddings.position_ids']
    assert len(everything) == LIST['tensors'] == 2711
    assert sum(map(math.prod, everything.values())) - math.prod(ids) == LIST['numbers'] == 3_336_106_240


def test_every_tensor_of_deepseeks_encoder_has_its_place(tmp_path, encoder):
    from nano_deepseek_ocr.pretrained import load_deepseek_ocr
    write_empty(tmp_path/'model.safetensors', listed('encoder') | listed('rest'))
    report = load_deepseek_ocr(encoder, tmp_path)
    assert report.tensors == len(listed('encoder')) and not report.at_init
    assert report.parameters == sum(map(math.prod, listed('encoder').values())) == 401_372_160


def test_a_published_name_that_ours_lacks_is_seen(tmp_path, encoder):
    from nano_deepseek_ocr.config import UserError
    from nano_deepseek_ocr.pretrained import load_deepseek_ocr
    write_empty(tmp_path/'model.safetensors', listed('encoder') | {'model.sam_model.neck.4.weight': [256]})
    with pytest.raises(UserError, match='neck.4'): load_deepseek_ocr(encoder, tmp_path)

"""Draw pages of every kind at five difficulties and print a fingerprint of pictures, texts and boxes.

python dev/pages.py [PAGES]: two versions of the code that print the same lines draw the same pages. Every
box is looked at on the way: it lies on its page, and there is ink in it."""
import hashlib
import sys

import numpy as np

from nano_deepseek_ocr.synth import KINDS, overfit_pages, page

n, total, drawn = int(sys.argv[1]) if len(sys.argv) > 1 else 12, hashlib.sha256(), 0
for kind in KINDS:
    print_ = hashlib.sha256()
    for i in range(n if kind != 'plot' else n // 3):
        for d in (0, .25, .5, .8, 1):
            for split in ('train', 'test'):
                s = page(7, i, kind, split, difficulty=d)
                w, h = s['image'].size
                for text, (x0, y0, x1, y1) in s['boxes'] if d <= .5 else ():
                    where = f"{s['id']} at {d}: {text!r} at {x0, y0, x1, y1} of {w, h}"
                    assert x0 < x1 and y0 < y1, f'empty box, {where}'
                    if kind != 'scene': assert 0 <= x0 and 0 <= y0 and x1 <= w and y1 <= h, f'outside, {where}'
                    assert np.asarray(s['image'].convert('L').crop((x0, y0, x1, y1))).std() > 2, f'no ink, {where}'
                print_.update(s['image'].tobytes() + repr((s['id'], s['prompt'], s['answer'], s['boxes'])).encode())
                drawn += 1
    print(kind, print_.hexdigest()[:16], flush=True)
    total.update(print_.digest())
for seed in range(4):
    for s in overfit_pages(seed):
        total.update(s['image'].tobytes() + repr((s['id'], s['answer'], s['boxes'])).encode())
        drawn += 1
print(drawn, 'pages', total.hexdigest())

"""Compare `score_page` with VLMEvalKit's port of the official OmniDocBench v1.0 scorer, on perturbed pages.

    pip install levenshtein func_timeout tabulate pandas
    python dev/check_omnidocbench.py FOLDER_WITH_OmniDocBench.json_AND_mds [rounds]

The port (ms-vlmeval 0.0.20, Apache-2.0) is fetched by pip into a temporary folder and only read; what it imports and a
score does not need (datasets, plotting, model code) is replaced by empty modules."""
import contextlib
import io
import os
import random
import subprocess
import sys
import tempfile
import types
import warnings
import zipfile
from collections import defaultdict
from pathlib import Path

from nano_deepseek_ocr.omnidocbench import find_prediction, read_dataset, score_page

COLUMNS = dict(text=('text_block', 'Edit_dist'), formula=('display_formula', 'Edit_dist'), table=('table', 'Edit_dist'),
               teds=('table', 'TEDS'), order=('reading_order', 'Edit_dist'))


def load_port(folder):
    "The port's modules: evaluator and metrics."
    subprocess.run([sys.executable, '-m', 'pip', 'download', '-q', '--no-deps', '-d', folder, 'ms-vlmeval==0.0.20'], check=True)
    with zipfile.ZipFile(next(Path(folder).glob('*.whl'))) as z:
        z.extractall(folder, [n for n in z.namelist() if 'OmniDocBench/' in n])

    def empty(name, **attributes):
        module = sys.modules[name] = types.ModuleType(name)
        module.__dict__.update(attributes, __path__=[])
        return module
    empty('evaluate'), empty('vlmeval'), empty('vlmeval.dataset')
    empty('vlmeval.smp', dump=None, load=None, get_intermediate_file_path=None)
    empty('vlmeval.dataset.image_base', ImageBaseDataset=object)
    empty('vlmeval.dataset.OmniDocBench').__path__ = [f'{folder}/vlmeval/dataset/OmniDocBench']
    from vlmeval.dataset.OmniDocBench import metrics, omnidocbench
    omnidocbench.defaultdict = defaultdict                     # the port forgets to import it
    return omnidocbench, metrics


def their_scores(port, page, text):
    "The port's scores of one page, under our names."
    omnidocbench, metrics = port
    scorer, out = omnidocbench.end2end_evaluator.__new__(omnidocbench.end2end_evaluator), {}
    scorer.match_method, scorer.references = 'quick_match', [page]
    info = {os.path.basename(page['page_info']['image_path']): page['page_info']['page_attribute']}
    with contextlib.redirect_stdout(io.StringIO()):
        found = scorer.get_matched_elements([page], [text])
        for name, (kind, metric) in COLUMNS.items():
            if found[kind].samples:
                metrics.METRIC_REGISTRY.get(metric)(found[kind]).evaluate([], 'x')
                out[name] = metrics.get_page_split(found[kind].samples, info)[metric]['ALL']
    return out


def perturb(text, how, rng):
    "What models do to a page."
    blocks = text.split('\n\n')
    if how == 'noise': return ''.join(c if rng.random() > .2 else rng.choice('abcxyz 123\n') for c in text)
    if how == 'cut': return text[:rng.randrange(len(text))]
    if how == 'lines': return '\n'.join(blocks)
    if how == 'shuffle': rng.shuffle(blocks)
    if how == 'drop': blocks = [b for b in blocks if rng.random() > .3]
    if how == 'split': blocks = [p for b in blocks for p in (b.split('. ') if '<table' not in b and '$$' not in b else [b])]
    if how == 'join': blocks = [b + ' ' + c for b, c in zip(blocks[::2], blocks[1::2] + [''])]
    if how == 'extra': blocks += ['156', 'words that stand nowhere', '$$x=1$$', '<table><tr><td>q</td></tr></table>', blocks[0]]
    if how == 'mixed':
        for step in rng.sample(['drop', 'split', 'join', 'extra', 'shuffle'], 3): blocks = perturb('\n\n'.join(blocks), step, rng).split('\n\n')
    return '\n\n'.join(blocks)


def main(folder, rounds=25):
    warnings.simplefilter('ignore')
    pages, folder, total, differ = read_dataset(folder), Path(folder), 0, 0
    texts = [find_prediction(folder/'mds', p['page_info']['image_path']).read_text() for p in pages]
    with tempfile.TemporaryDirectory() as tmp:
        port = load_port(tmp)
        for seed in range(int(rounds)):
            rng = random.Random(seed)
            for how in ('same', 'noise', 'cut', 'lines', 'shuffle', 'drop', 'split', 'join', 'extra', 'mixed'):
                i = rng.randrange(len(pages))
                text = perturb(texts[i], how, rng)
                ours, theirs = score_page(pages[i], text), their_scores(port, pages[i], text)
                off = {k: (ours.get(k), theirs.get(k)) for k in COLUMNS if abs(ours.get(k, -1) - theirs.get(k, -1)) > 1e-9}
                total, differ = total + 1, differ + bool(off)
                if off: print(f'round {seed}, {how}, page {i}: ours and theirs differ: {off}')
    print(f'{total} pages scored by both, {total - differ} equal to 1e-9 in all columns, {differ} not')


if __name__ == '__main__': main(*sys.argv[1:])

"""Read test pages with a released model, and say whether it writes what it should.

    python dev/check_released.py deepseek-ai/DeepSeek-OCR-2          # 6.8 GB come from the Hub
    python dev/check_released.py FOLDER [PAGE ...] [--mode base] [--tokens 200] [--dtype int8]

Without pages it reads two: the form that transformers' own tests read (fetched from the Hub),
whose first words are known for Unlimited-OCR and DeepSeek-OCR 2, and a page drawn here, whose
text is known for all. Prints a table to paste into an issue; exits with 1 if a page is not read
as it should be. What is compared is the beginning: the rest may differ with the number type.
"""
import argparse, platform, re, sys, time
from pathlib import Path
import torch
from nano_deepseek_ocr.config import UserError, first_line
from nano_deepseek_ocr.files import parse_grounding
from nano_deepseek_ocr.image import get_mode, load_page, n_positions
from nano_deepseek_ocr.metrics import error_rate
from nano_deepseek_ocr.model import NanoDeepseekOCR
from nano_deepseek_ocr.synth import Canvas, font

FORM = 'transformers/model_doc/ocr_suggestion_form.jpg'
# what transformers expects in its tests and documentation, on a CPU; for DeepSeek-OCR it has no
# class and so no test: the form's title should be among its words
BEGINS = {'unlimited-ocr': '<|det|>image [383, 87, 497, 171]<|/det|>\n<|det|>title [333',
          'deepseek-ocr-2': 'R&D QUALITY IMPROVEMENT\nSUGGESTION/SOLUTION FORM\n'}
HOLDS = 'R&D QUALITY IMPROVEMENT'
LINES = ('A page that was drawn for a test', '',
         'The harbour office opens at seven in the morning,',
         'and the last ferry leaves at 21:40 from pier 3.',
         'Tickets: adults 12.50, children 6.25, dogs free.', '',
         'Whoever finds an umbrella may keep it for a day.')


def drawn():
    "A page of 900 x 640 pixels with large print."
    c = Canvas((900, 640)); y = 60
    for i, line in enumerate(LINES):
        size = 34 if i == 0 else 26
        c.text(60, y, line, font('sans', size)); y += 2 * size
    return c.image


def plain(text):
    "What a person reads of an answer: marks and boxes out, spaces and line ends as one space."
    return ' '.join(re.sub(r'<\|(ref|det)\|>.*?<\|/\1\|>|<\|.*?\|>|[#*]', '', text, flags=re.S).split())


def judged(name, family, text):
    "Was a page read as it should be? None: nobody said how."
    if name == 'drawn':
        wrong = error_rate(plain(text), plain('\n'.join(LINES)))
        return wrong < .05, f'{100 * wrong:.1f} % of characters wrong'
    if name == 'form' and family in BEGINS:
        return text.startswith(BEGINS[family]), f'begins {BEGINS[family][:40]!r}'
    if name == 'form': return HOLDS in text, f'holds {HOLDS!r}'
    return None, 'not known'


def form():
    "transformers' test page, or None with a word of why not."
    from huggingface_hub import hf_hub_download
    try: return hf_hub_download('huggingface/documentation-images', FORM, repo_type='dataset')
    except Exception as e: print(f'the form did not come: {first_line(e)[:120]}', file=sys.stderr)


def peak():
    "Largest memory so far in GB, mapped weights that were touched included."
    try: import resource
    except ImportError: return float('nan')                  # Windows
    unit = 1 if sys.platform == 'darwin' else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def read_all(model, pages, mode, tokens):
    "A row for each page."
    for name, page in pages.items():
        page = load_page(page); m = get_mode(mode or model.cfg.train.mode, page.size)
        began = time.time(); a = model.read(page, mode=mode, max_new_tokens=tokens)
        ok, why = judged(name, model.cfg.name, str(a))
        yield dict(page=name, pixels='x'.join(map(str, page.size)), mode=m.name,
                   places=n_positions(m.name, page.size), tokens=len(a.ids),
                   seconds=f'{time.time() - began:.1f}', rate=f'{a.tokens_per_s:.1f}',
                   ended=a.reason, verdict={True: 'yes', False: 'NO', None: '-'}[ok], should=why,
                   words=str(a)[:90].replace('\n', '\\n').replace('|', '\\|'),
                   boxes=len(parse_grounding(str(a))))


def main():
    "Load, read, compare."
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('model', help='a folder, or a repository on the Hub')
    ap.add_argument('pages', nargs='*', type=Path, help='pictures instead of the two test pages')
    ap.add_argument('--mode', help="resolution mode; the model's own if not said")
    ap.add_argument('--tokens', type=int, default=200, help='longest answer')
    ap.add_argument('--dtype', default='bf16', choices=('bf16', 'fp32', 'int8'), help='of the weights')
    ap.add_argument('--device', help='the best there is if not said')
    a = ap.parse_args()
    kind = dict(bf16=torch.bfloat16, fp32=torch.float32, int8='int8')[a.dtype]
    try:
        began = time.time()
        model = NanoDeepseekOCR.from_pretrained(a.model, a.device, kind)
        took, model.tok = time.time() - began, model.tokenizer()
        pages = {p.name: p for p in a.pages} or {'form': form(), 'drawn': drawn()}
        rows = list(read_all(model, {k: p for k, p in pages.items() if p}, a.mode, a.tokens))
    except UserError as e: sys.exit(f'error: {e}')
    numbers, where = sum(p.numel() for p in model.parameters()), next(model.parameters()).device
    print(f'{a.model}: {model.cfg.name}, {numbers:,} parameters, {a.dtype}, {where.type} '
          f'({platform.machine()}, {torch.get_num_threads()} threads), loaded in {took:.1f} s, '
          f'at most {peak():.1f} GB; torch {torch.__version__}, Python {platform.python_version()}\n')
    print(f'| {" | ".join(rows[0])} |\n|{"---|" * len(rows[0])}')
    for r in rows: print(f'| {" | ".join(map(str, r.values()))} |')
    sys.exit(any(r['verdict'] == 'NO' for r in rows))


if __name__ == '__main__': main()

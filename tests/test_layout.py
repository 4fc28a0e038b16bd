"""The layout: one idea a notebook, one notebook a module, and a module imports only lower numbers."""
import ast
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT/'nano_deepseek_ocr'
NOTEBOOKS = {p.stem: p for p in sorted((ROOT/'nbs').glob('[0-9]*.ipynb'))}   # in the order of the book
NUMBERS = {stem.split('_')[0]: stem for stem in NOTEBOOKS}
ORDER = {stem.split('_', 1)[1]: n for n, stem in enumerate(NOTEBOOKS)}       # module -> its place
MODULES = sorted(PACKAGE.glob('[a-z]*.py'))                                # the package's door, __init__ and __main__, is no room
TEXTS = [ROOT/'README.md', ROOT/'CONTRIBUTING.md', *sorted(PACKAGE.rglob('assets/**/*.md'))]
MAX_LINES = 450


def cells(path, kind):
    "The cells of one kind in a notebook: (id, source)."
    found = json.loads(path.read_text(encoding='utf-8'))['cells']
    return [(c['id'], ''.join(c['source'])) for c in found if c['cell_type'] == kind]


def imports(tree):
    "What a module takes from the package, inside functions too: (line, module, name), name None for a whole module."
    inside = lambda name: (name or '').split('.')[0] == PACKAGE.name
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for a in node.names:
                if inside(a.name): yield node.lineno, a.name.partition('.')[2] or '__init__', None
        elif isinstance(node, ast.ImportFrom) and (node.level or inside(node.module)):
            module = node.module or '' if node.level else node.module.partition('.')[2]
            for a in node.names:
                if module: yield node.lineno, module, a.name
                elif a.name in ORDER: yield node.lineno, a.name, None
                else: yield node.lineno, '__init__', a.name
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith('import_module'):
            for a in node.args[:1]:
                if isinstance(a, ast.Constant) and inside(a.value): yield node.lineno, a.value.partition('.')[2], None


@pytest.mark.parametrize('path', MODULES, ids=lambda p: p.stem)
def test_module(path):
    "Every import points to a lower number, so there can be no circle either."
    text = path.read_text(encoding='utf-8')
    tree, wrong = ast.parse(text), []
    assert path.stem in ORDER, f'no notebook makes {path.name}'
    lines = sum(bool(l.strip()) and not l.startswith('# %%') for l in text.splitlines())   # written ones
    assert lines <= MAX_LINES, f'{lines} lines hold more than one idea'
    whole = {}
    for line, module, name in imports(tree):
        if (module, name) == ('__init__', '__version__'): continue
        if ORDER.get(module, len(ORDER)) >= ORDER[path.stem]: wrong.append(f'line {line} imports {module}, which comes later')
        if name and name.startswith('_'): wrong.append(f'line {line} imports {module}.{name}, which is private')
        if name is None: whole[module] = module
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and re.match('_[^_]', node.attr) and ast.unparse(node.value).split('.')[-1] in whole:
            wrong.append(f'line {node.lineno} uses {ast.unparse(node)}, which is private')
    assert not wrong, '\n'.join(wrong)


@pytest.mark.parametrize('stem', NOTEBOOKS)
def test_notebook_and_module_share_a_name(stem):
    exports = [m for _, text in cells(NOTEBOOKS[stem], 'code') for m in re.findall(r'^#\| default_exp (\S+)', text, re.M)]
    assert exports in ([], [stem.split('_', 1)[1]])             # a lesson may export nothing
    if exports: assert (PACKAGE/f'{exports[0]}.py').is_file()


def test_every_notebook_has_its_number(): assert len(NUMBERS) == len(ORDER) == len(NOTEBOOKS)


def test_sidebar_and_table_name_every_notebook_in_order():
    sidebar = (ROOT/'nbs'/'sidebar.yml').read_text(encoding='utf-8')
    assert re.findall(r'^\s*- (?:href: )?(\d\w+)\.ipynb\s*$', sidebar, re.M) == list(NOTEBOOKS)
    table = re.findall(r'^\| \[(\w+)\]\(nbs/(\w+)\.ipynb\) \|.*?/nbs/(\w+)\.ipynb\)', (ROOT/'README.md').read_text(encoding='utf-8'), re.M)
    assert table == [(stem, stem, stem) for stem in NOTEBOOKS]


@pytest.mark.parametrize('stem', NOTEBOOKS)
def test_the_badge_opens_its_own_notebook(stem):
    badges = re.findall(r'\(https://colab\.research\.google\.com/github/\S+/blob/main/nbs/(\w+)\.ipynb\)',
                        '\n'.join(text for _, text in cells(NOTEBOOKS[stem], 'markdown')))
    assert badges == [stem]


NUMBER = r'\d\d[a-z]?\b'
LINK = re.compile(r'\[([^\[\]]*)\]\(([^()\s#]*?)(\d\w*)\.ipynb(?:#[^()\s]*)?\)')
PROSE = re.compile(rf'[Nn]otebooks? ({NUMBER}(?:(?:, | and | or | to |-){NUMBER})*)')


def lost(text):
    "Links and numbers in prose that lead to no notebook, and links whose words name another."
    for words, base, stem in LINK.findall(text):
        if (not base or base.endswith('nbs/')) and stem not in NOTEBOOKS: yield f'[{words}]({stem}.ipynb)'
        named = re.match(rf'`?(?:[Nn]otebook )?({NUMBER})(?!\.)', words)
        if named and named[1] != stem.split('_')[0]: yield f'[{words}] leads to {stem}'
    for found in PROSE.findall(text):
        yield from (f'notebook {n}' for n in re.findall(NUMBER, found) if n not in NUMBERS)
    yield from (f'`{stem}`' for stem in re.findall(rf'`(\d\d[a-z]?_[a-z_]+)(?:\.ipynb)?`', text) if stem not in NOTEBOOKS)


@pytest.mark.parametrize('path', [*NOTEBOOKS.values(), ROOT/'nbs'/'index.ipynb', *TEXTS], ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_and_numbers_lead_somewhere(path):
    if path.suffix == '.md': parts = [('', path.read_text(encoding='utf-8'))]
    else: parts = cells(path, 'markdown') + [(i, '\n'.join(re.findall('#.*', text))) for i, text in cells(path, 'code')]
    wrong = [f'cell {i}: {what}' for i, text in parts for what in lost(text)]
    assert not wrong, '\n'.join(wrong)


@pytest.mark.parametrize('before, after', zip(NOTEBOOKS, list(NOTEBOOKS)[1:]))
def test_the_way_on_and_back(before, after):
    prose = {stem: '\n'.join(text for _, text in cells(NOTEBOOKS[stem], 'markdown')) for stem in (before, after)}
    assert f']({after}.ipynb' in prose[before] and f']({before}.ipynb' in prose[after]


def poor_checks(text):
    "Checks in a cell that pass whatever the code does, or that fail with nothing to say but `False`."
    text = re.sub(r'^(\s*)[%!].*$', r'\1pass', text, flags=re.M)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Assert) and isinstance(node.test, ast.Constant) and node.test.value: yield ast.unparse(node)
        if not isinstance(node, ast.Call) or ast.unparse(node.func) != 'test_eq' or len(node.args) != 2: continue
        a, b = node.args
        if ast.dump(a) == ast.dump(b) and not any(isinstance(n, ast.Call) for n in ast.walk(a)): yield ast.unparse(node)
        said = isinstance(a, ast.Compare) and not isinstance(a.ops[0], (ast.Eq, ast.Is))      # long bytes are better not said
        if said and isinstance(b, ast.Constant) and b.value is True:
            yield f'{ast.unparse(node)}: test(a, b, operator.lt) or `assert a < b, a` says what a was'


@pytest.mark.parametrize('stem', NOTEBOOKS)
def test_checks_can_fail_and_say_how(stem):
    wrong = [f'cell {i}: {what}' for i, text in cells(NOTEBOOKS[stem], 'code') for what in poor_checks(text)]
    assert not wrong, '\n'.join(wrong)

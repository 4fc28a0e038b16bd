"""Make README.md from nbs/index.ipynb, with the notebook's pictures in index_files/.

nbdev_readme does the same with quarto; this needs only nbconvert, so it also runs where quarto is not."""
import re
import shutil
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter

root = Path(__file__).resolve().parent.parent
nb = nbformat.read(root/'nbs'/'index.ipynb', 4)
nb.metadata['language_info'] = {'name': 'python'}
nb.cells = [c for c in nb.cells if not re.search(r'^#\|\s*hide\b', c.source, re.M)]
for c in nb.cells:
    if c.cell_type == 'code' and re.search(r'^#\|\s*echo:\s*false', c.source, re.M): c.metadata['hide_input'] = True
    c.source = re.sub(r'^#\|.*\n?', '', c.source, flags=re.M)
for c in nb.cells:
    if c.metadata.get('hide_input'): c.source = ''
body, extra = MarkdownExporter().from_notebook_node(nb)
shutil.rmtree(root/'index_files', ignore_errors=True)
for name, data in extra['outputs'].items():
    path = root/'index_files'/name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    body = body.replace(f'![png]({name})', f'![a page on its way through the model](index_files/{name})')
body = re.sub(r'```python\s*```\n', '', body).replace('    \n![', '\n![')
body = re.sub(r'\]\((\d\d\w*\.ipynb)\)', r'](nbs/\1)', body)
(root/'README.md').write_text(re.sub(r'\n{3,}', '\n\n', body).strip() + '\n', encoding='utf-8')

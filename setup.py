"The package's metadata comes from settings.ini, the file nbdev reads too."
from configparser import ConfigParser
from pathlib import Path
from setuptools import find_packages, setup

ini = ConfigParser(delimiters=['='])
ini.read('settings.ini', encoding='utf-8')
cfg = ini['DEFAULT']

setup(
    name=cfg['lib_name'],
    version=cfg['version'],
    description=cfg['description'],
    long_description=Path('README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    author=cfg['author'],
    author_email=cfg['author_email'],
    url=cfg['git_url'],
    license='Apache-2.0',
    keywords=cfg['keywords'].split(),
    packages=find_packages(include=[cfg['lib_path'], cfg['lib_path'] + '.*']),
    package_data={cfg['lib_path']: ['py.typed', 'assets/*', 'assets/*/*']},
    python_requires='>=' + cfg['min_python'],
    install_requires=cfg['requirements'].split(),
    extras_require={'eval': cfg['eval_requirements'].split(),
                    'dev': (cfg['dev_requirements'] + ' ' + cfg['eval_requirements']).split(),
                    **{name: [name] for name in ('tensorboard', 'wandb', 'trackio')}},
    entry_points={'nbdev': [f"{cfg['lib_path']}={cfg['lib_path']}._modidx:d"],
                  'console_scripts': [f"nano-ocr={cfg['lib_path']}.__main__:main"]},
    classifiers=['Programming Language :: Python :: 3', 'Intended Audience :: Developers',
                 'Topic :: Scientific/Engineering :: Artificial Intelligence'],
)

"DeepSeek-OCR built from nothing in notebooks. Importing the package alone is quick; its names bring torch when they are used."

__version__ = "0.2.0"
__all__ = ['NanoDeepseekOCR', 'preset', 'UserError']

_HOME = dict(NanoDeepseekOCR='model', preset='config', UserError='config')


def __getattr__(name):
    if name not in _HOME: raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    from importlib import import_module
    return getattr(import_module(f'{__name__}.{_HOME[name]}'), name)


def __dir__(): return sorted([*globals(), *_HOME])

"`nano-ocr WORD …`, also `python -m nano_deepseek_ocr WORD …`: each word runs one module's command."
import runpy
import sys

COMMANDS = {'read': ('sample', 'read pages, or show what a run answers on its own'),
            'train': ('train', 'train a model'),
            'evaluate': ('evaluate', 'score a model, or saved predictions'),
            'bench': ('bench', 'time everything beside other implementations'),
            'reads': ('reads', 'the small model that reads, from nothing')}


def main():
    "Run the command that the first word names; without a word, say which there are."
    word = sys.argv[1] if len(sys.argv) > 1 else '--help'
    if word in ('-h', '--help'):
        print('usage: nano-ocr COMMAND …\n\n' + '\n'.join(f'  {k:9} {what}' for k, (_, what) in COMMANDS.items()) +
              '\n\nnano-ocr COMMAND --help says what each takes.')
        return
    if word not in COMMANDS: sys.exit(f'error: no command {word!r}; there are: {", ".join(COMMANDS)}')
    del sys.argv[1]
    runpy.run_module(f'nano_deepseek_ocr.{COMMANDS[word][0]}', run_name='__main__', alter_sys=True)


if __name__ == '__main__': main()

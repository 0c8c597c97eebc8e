"""The other end of `Isolated`: `python serve.py FILE FUNCTION` answers calls read from its standard input.

It imports the file and nothing of pgrad, so that it starts at once. What the function prints goes to standard
error, standard output being the pipe for the answers.
"""

import importlib.util
import os
import pickle
import signal
import sys
from pathlib import Path


def main() -> None:
    """Answer until the input ends."""
    for stop in ("SIGINT", "SIGTERM", "SIGHUP"):  # for who asks: it ends this process
        if hasattr(signal, stop):
            signal.signal(getattr(signal, stop), signal.SIG_IGN)
    path, name = Path(sys.argv[1]), sys.argv[2]
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    # Its own folder is where Python looks first for what a script imports; here that is this file's.
    sys.path[0] = str(path.parent)
    function = None
    while True:
        try:
            arguments = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            if function is None:
                spec = importlib.util.spec_from_file_location("reward", path)
                if spec is None or spec.loader is None:
                    raise ImportError(f"{path} is not a Python file")
                module = importlib.util.module_from_spec(spec)
                sys.modules["reward"] = module
                spec.loader.exec_module(module)
                function = getattr(module, name)
            answer = pickle.dumps((False, function(**arguments)))
        except Exception as error:
            answer = pickle.dumps((True, f"{type(error).__name__}: {error}"))
        answers.write(answer)
        answers.flush()


if __name__ == "__main__":
    main()

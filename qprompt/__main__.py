"""`python -m qprompt` is the command `qprompt`."""

from .use.command import main

if __name__ == "__main__":
    main()

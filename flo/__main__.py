"""`python -m flo` is the `flo` command."""

from flo.cli import main

if __name__ == "__main__":
    main()

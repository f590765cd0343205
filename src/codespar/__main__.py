"""`python -m codespar`: the same as the `codespar` program."""

from codespar.cli import main

if __name__ == "__main__":
    main()

"""The command line. `main` is the `codespar` program; everything heavy is imported by the command that needs it."""

from codespar.cli.app import main

__all__ = ["main"]

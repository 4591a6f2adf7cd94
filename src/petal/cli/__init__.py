"""The command `petal`: each act parses its words, calls the library, and prints."""

from __future__ import annotations

import os
import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line that this process was started with; ends in SystemExit unless all went well."""
    if sys.argv[1:] == ["--version"]:
        # Asked by scripts: answered without a parser.
        from petal import __version__

        print(f"petal {__version__}")
        return
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed by who started it, as `>&-` and some supervisors do
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))
    for stream in (sys.stdout, sys.stderr):
        # What a terminal cannot show is shown escaped, rather than ending the answer half-way.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    from petal.cli.application import app

    try:
        try:
            app(prog_name="petal")
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # Who read the output has left, as `head` does; what is still buffered has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)

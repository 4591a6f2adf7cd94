"""One workload with one candidate in a process of its own: `python -m bench.child WORKLOAD CANDIDATE PLACE SIZES`."""

from __future__ import annotations

import asyncio
import json
import sys

from bench.candidates import CANDIDATES
from bench.workloads import WORKLOADS, Sizes


def main(workload: str, candidate: str, place: str, sizes: str) -> None:
    """Prints the measures as the last line, as JSON."""
    measures = asyncio.run(WORKLOADS[workload].run(CANDIDATES[candidate], place, Sizes(**json.loads(sizes))))
    print(json.dumps(measures.as_json()))


if __name__ == "__main__":
    main(*sys.argv[1:])

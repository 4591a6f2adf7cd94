"""The benchmarks: `python -m bench`, or a part of them, or a profile of one candidate."""

from __future__ import annotations

import argparse
import asyncio

from bench.candidates import CANDIDATES
from bench.profiling import profile_chat, profile_crowd
from bench.report import write
from bench.results import Results
from bench.running import Places, run_all
from bench.workloads import WORKLOADS, Sizes


def main() -> None:
    """Runs what the command line asks for, prints the table and writes the page."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", default="", help="workloads, e.g. a,b1; b is b1 and b2 (default: all)")
    parser.add_argument("--candidates", default=",".join(CANDIDATES), help="separated by commas (default: %(default)s)")
    parser.add_argument("--turns", type=int, default=1000, help="turns of the long chat (default: %(default)s)")
    parser.add_argument("--scale", type=float, default=1.0, help="of the other workloads' counts (default: 1)")
    parser.add_argument("--repeats", type=int, default=3, help="at most so many times each (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=240.0, help="limit of one run (default: %(default)g)")
    parser.add_argument("--report", action="store_true", help="run nothing: only join what was found so far")
    parser.add_argument(
        "--profile",
        metavar="CANDIDATE",
        choices=CANDIDATES,
        help="where its time goes: the turn after --turns, or with --only b many threads at once",
    )
    chosen = parser.parse_args()
    sizes = Sizes(chosen.turns, chosen.scale, chosen.seconds)

    if chosen.profile:
        candidate = CANDIDATES[chosen.profile]
        with Places() as places, places.fresh(candidate) as place:
            if chosen.only.startswith("b"):
                print(asyncio.run(profile_crowd(candidate, place)))
            else:
                print(asyncio.run(profile_chat(candidate, place, chosen.turns)))
        return
    if not chosen.report:
        names = chosen.candidates.split(",")
        if unknown := set(names) - CANDIDATES.keys():
            parser.error(f"no candidate {', '.join(sorted(unknown))}; known: {', '.join(CANDIDATES)}")
        parts = tuple(filter(None, chosen.only.split(",")))
        workloads = [one for one in WORKLOADS.values() if not parts or one.name.startswith(parts)]
        if not workloads:
            parser.error(f"no workload {chosen.only}; known: {', '.join(WORKLOADS)}")
        run_all(workloads, [CANDIDATES[name] for name in names], sizes, chosen.repeats)
    print(write(Results.read()))


if __name__ == "__main__":
    main()

"""Exit with 1 when a picture among the arguments is judged generated; for commit hooks.

A small error budget is wise here: at 0.001 one camera picture in a thousand is refused.
"""

from __future__ import annotations

import argparse

from distildire import Detector


def main() -> int:
    """Judge the pictures named on the command line; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pictures", nargs="*")
    parser.add_argument("--fpr", type=float, default=0.001, help="error budget")
    parser.add_argument("--model", default="nano")
    options = parser.parse_args()
    refused = 0
    for verdict in Detector(options.model).stream(options.pictures, options.fpr):
        if verdict.error is not None:
            print(f"{verdict.path}: not scored: {verdict.error}")
        elif verdict.verdict == "fake":
            print(f"{verdict.path}: likely generated ({verdict.probability:.1%})")
            refused += 1
    return min(refused, 1)


if __name__ == "__main__":
    raise SystemExit(main())

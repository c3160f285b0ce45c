"""Refuse commits that add generated pictures: `python -m distildire.cli.hook -- PICTURE...`.

Exits with 1 where a picture is judged generated, with 2 where the options mean nothing; a picture
that can't be scored is named, and passes.

A small error budget is wise here. One that is less than one of the real pictures that the model was
calibrated on (0.001, of 898) refuses only what scores above all of them; of other camera pictures
more may do so than the budget says.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from distildire.detector import Detector
from distildire.io.text import escape_on_the_way_out, shown


def main(arguments: Sequence[str] | None = None) -> int:
    """Judge the pictures named on the command line; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pictures", nargs="*")
    parser.add_argument("--fpr", type=float, default=0.001, help="error budget")
    parser.add_argument("--model", default="nano")
    options = parser.parse_args(arguments)
    escape_on_the_way_out()
    refused = 0
    try:
        detector = Detector(options.model, fpr=options.fpr)
        calibration = detector.bundle.calibration
        if calibration is not None and (remark := calibration.remark(options.fpr)):
            print(f"distildire: --fpr: {remark}", file=sys.stderr)
        for verdict in detector.stream(options.pictures):
            if verdict.error is not None:
                print(f"{shown(verdict.path)}: not scored: {verdict.error}")
            elif verdict.verdict == "fake":
                print(f"{shown(verdict.path)}: likely generated ({verdict.probability:.1%})")
                refused += 1
    except ValueError as error:
        print(f"distildire: {error}", file=sys.stderr)
        return 2
    return min(refused, 1)


if __name__ == "__main__":
    raise SystemExit(main())

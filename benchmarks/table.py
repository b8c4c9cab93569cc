"""What a benchmark measured, beside its peer."""

import os
import sys
from typing import Any


class Table:
    """The figures, printed as they come."""

    def __init__(self, peer: str) -> None:
        self.rows: list[dict[str, Any]] = []
        print(f"{'':46} {peer:>12} {'HEPSpawner':>12} {'ratio':>6}  to reach")

    def add(
        self, figure: str, peer: float, ours: float, goal: str, good: bool, unit: str = "s", more: Any = None
    ) -> None:
        """A figure, whether it is as promised, and what is good to know beside it."""
        row = {"figure": figure, "peer": peer, "ours": ours, "unit": unit, "goal": goal, "good": good}
        self.rows.append({**row, "load": os.getloadavg()[0], "more": more})
        ratio = f"{ours / peer:.2f}" if peer else ""
        texts = [f"{value:.2f} {unit}" if unit == "s" else f"{value:.0f} {unit}" for value in (peer, ours)]
        verdict = "" if good else "  MISSED"
        print(f"{figure:46} {texts[0]:>12} {texts[1]:>12} {ratio:>6}  {goal}{verdict}  (load {os.getloadavg()[0]:.1f})")
        sys.stdout.flush()

    @property
    def good(self) -> bool:
        """Whether all is as promised."""
        return all(row["good"] for row in self.rows)

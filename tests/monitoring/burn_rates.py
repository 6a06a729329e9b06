# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Cases of the error budgets' alerts, made from what they promise.

What is promised is in POLICIES. From stretches of steady traffic this file computes itself, with plain sums over the counters, when both
windows are over the limit and for how long, and asks for the alert or for silence at each moment at which that is beyond doubt.
"""

from __future__ import annotations

from typing import Any, NamedTuple

BUDGET = 0.001
LEAST_RATE = 0.02  # requests a second
DOUBT = 0.06  # a ratio that is nearer to its limit is not asked about


class Policy(NamedTuple):
    """An alert: how many times the budget, over which windows (in steps), for how long, and how long a step is (in minutes)."""

    factor: float
    long: int
    short: int
    hold: int
    step: int
    words: str


POLICIES = {
    "WharfErrorBudgetBurning": Policy(14.4, 60, 5, 2, 1, "the last hour"),
    "WharfErrorBudgetBurningSlowly": Policy(6, 72, 6, 3, 5, "the last six hours"),
    "WharfErrorBudgetShrinking": Policy(1, 144, 12, 2, 30, "the last three days"),
}

Stretch = tuple[int, float, float]  # steps, requests a step, errors a step


def scenarios(policy: Policy) -> dict[str, list[Stretch]]:
    """Courses of events, by what they are."""
    long, short, limit = policy.long, policy.short, policy.factor * BUDGET
    busy, calm = 10000.0, 500.0
    hold = policy.hold
    return {
        "a little over the limit": [(long * 2, busy, busy * limit * 1.1)],
        "a little under the limit": [(long * 2, busy, busy * limit * 0.9)],
        "it begins": [(long + 5, busy, 0), (long + 10, busy, busy * limit * 3)],
        "it ends": [(long + 5, busy, busy * limit * 4), (long + 10, busy, 0)],
        "it comes back at once": [
            (long + 5, busy, busy * limit * 4),
            (short * 2, busy, 0),
            (short + hold + 4, busy, busy * limit * 4 * short),
        ],
        "it ends nearly": [(long + 5, busy, busy * limit * 4), (long + 10, busy, busy * limit * 0.88)],
        "one outage that is over at once": [(long, busy, 0), (max(1, short // 4), busy, busy * limit * 8), (long, busy, 0)],
        "for as long as the short window": [(long, busy, 0), (short + hold, busy, busy * limit * 5), (long, busy, 0)],
        "it has not lasted for long": [(long, busy, 0), (long // 3, busy, busy * limit * 2.6), (long, busy, 0)],
        "less traffic, the same errors": [(long, busy, busy * limit / 2), (long + 10, calm, busy * limit / 2), (long, busy, 0)],
        "less traffic, fewer errors": [
            (long // 2, busy, busy * limit * 4),
            (long // 2 + 3, busy, busy * limit * 0.6),
            (long, calm, calm * limit * 0.6),
        ],
        "more traffic, the same errors": [(long + 5, calm, calm * limit * 2), (long, busy, calm * limit * 2)],
        "hardly any traffic": [(long * 2, 0.85 * LEAST_RATE * 60 * policy.step, 0.5 * LEAST_RATE * 60 * policy.step)],
        "just enough traffic": [(long * 2, 1.1 * LEAST_RATE * 60 * policy.step, 0.5 * LEAST_RATE * 60 * policy.step)],
    }


def counters(stretches: list[Stretch]) -> tuple[list[float], list[float]]:
    """The two counters at each step, from 0 on."""
    requests, errors = [0.0], [0.0]
    for steps, more, wrong in stretches:
        for _step in range(steps):
            requests.append(requests[-1] + more)
            errors.append(errors[-1] + wrong)
    return requests, errors


def expectation(policy: Policy, requests: list[float], errors: list[float]) -> tuple[list[bool | None], list[float]]:
    """For each step whether the alert fires (None: not beyond doubt), and the ratio over the long window."""
    limit = policy.factor * BUDGET
    hour = max(1, 60 // policy.step)
    over: list[bool | None] = []
    ratios: list[float] = []
    for now in range(len(requests)):
        verdicts: list[bool | None] = []
        for window in (policy.long, policy.short):
            # Until the counters are as old as the window nothing is asked.
            known = now >= window and requests[now] > requests[now - window]
            ratio = (errors[now] - errors[now - window]) / (requests[now] - requests[now - window]) if known else 0.0
            verdicts.append(None if not known or abs(ratio / limit - 1) < DOUBT else ratio > limit)
            if window == policy.long:
                ratios.append(ratio)
        rate = (requests[now] - requests[now - hour]) / (hour * policy.step * 60) if now >= hour else 0.0
        verdicts.append(None if now < hour or abs(rate / LEAST_RATE - 1) < DOUBT else rate > LEAST_RATE)
        over.append(False if False in verdicts else None if None in verdicts else True)
    fires: list[bool | None] = []
    for now in range(len(over)):
        recent = over[max(0, now - policy.hold - 1) : now + 1]
        # One step more than `for` has to be certain; and any certain pause within `for` keeps it silent.
        if len(recent) == policy.hold + 2 and all(value is True for value in recent):
            fires.append(True)
        elif any(value is False for value in recent[-policy.hold - 1 :]):
            fires.append(False)
        else:
            fires.append(None)
    return fires, ratios


def _percent(ratio: float) -> str:
    return f"{float(f'{ratio * 100:.4g}'):g}%"


def cases() -> dict[str, list[dict[str, Any]]]:
    """The cases of each alert in the form of alerts.yml."""
    found: dict[str, list[dict[str, Any]]] = {}
    for alert, policy in POLICIES.items():
        for what, stretches in scenarios(policy).items():
            for operation in ("read", "write"):
                requests, errors = counters(stretches)
                fires, ratios = expectation(policy, requests, errors)
                case: dict[str, Any] = {
                    "case": f"{what} ({operation}s)",
                    "interval": f"{policy.step}m",
                    "evaluation": f"{policy.step}m",
                    "series": {
                        f'wharf_client_{operation}s_total{{cluster="c",node="lb1"}}': " ".join(f"{value:.6f}" for value in requests),
                        f'wharf_client_{operation}_errors_total{{cluster="c",node="lb1"}}': " ".join(f"{value:.6f}" for value in errors),
                    },
                    "silent": [],
                    "firing": {},
                }
                stride = max(1, len(fires) // 150)
                for now, verdict in enumerate(fires):
                    edge = any(fires[near] != verdict for near in range(max(0, now - 2), min(len(fires), now + 3)))
                    if verdict is None or not (edge or now % stride == 0):
                        continue
                    # Nor is anything asked where a summary's last digit hangs on how sums are rounded.
                    if _percent(ratios[now] * (1 + 1e-6)) != _percent(ratios[now] * (1 - 1e-6)):
                        continue
                    time = f"{now * policy.step}m"
                    if verdict:
                        summary = f"c: {_percent(ratios[now])} of all {operation}s failed in {policy.words}"
                        case["firing"][time] = [{"cluster": "c", "operation": operation, "summary": summary}]
                    else:
                        case["silent"].append(time)
                found.setdefault(alert, []).append(case)
        found[alert] += [
            {
                "case": "Two clusters do not hide each other's errors.",
                "interval": f"{policy.step}m",
                "evaluation": f"{policy.step}m",
                "series": {
                    'wharf_client_reads_total{cluster="d",node="lb1"}': f"0+1000000x{policy.long * 2}",
                    'wharf_client_read_errors_total{cluster="d",node="lb1"}': f"0x{policy.long * 2}",
                    'wharf_client_reads_total{cluster="c",node="lb1"}': f"0+1000x{policy.long * 2}",
                    'wharf_client_read_errors_total{cluster="c",node="lb1"}': f"0+500x{policy.long * 2}",
                },
                "firing": {
                    f"{policy.long * 2 * policy.step}m": [
                        {"cluster": "c", "operation": "read", "summary": f"c: 50% of all reads failed in {policy.words}"}
                    ]
                },
            },
            {
                "case": "The counters start anew with the exporter.",
                "interval": f"{policy.step}m",
                "evaluation": f"{policy.step}m",
                "series": {
                    'wharf_client_reads_total{cluster="c",node="lb1"}': f"90000000+1000x{policy.long} 0+1000x{policy.long}",
                    'wharf_client_read_errors_total{cluster="c",node="lb1"}': f"80000000+0x{policy.long} 0x{policy.long}",
                },
                "silent": [f"{(policy.long + more) * policy.step}m" for more in (2, 5, policy.short)],
            },
            {
                "case": "Nothing is counted.",
                "interval": f"{policy.step}m",
                "evaluation": f"{policy.step}m",
                "series": {'wharf_client_read_errors_total{cluster="c",node="lb1"}': f"0+100x{policy.long * 2}"},
                "silent": [f"{policy.long * 2 * policy.step}m"],
            },
        ]
    return found

#!/usr/bin/env python3
"""Gathers what run.sh's steps wrote into report.json and a table of floors, goals and figures, report.md.

usage: report.py [--rehearse] OUT
"""
import json
import pathlib
import sys

# name: (floor, goal, lower is better). The ids are those of the project's list of goals.
GOALS = {
    "G1": (0.80, 0.92, False),
    "G1b": (0.65, 0.85, False),
    "G2 M=1-16": (2.5, 3.3, False),
    "G2 M=32": (2.2, 3.1, False),
    "G2 M=64": (1.8, 2.4, False),
    "G2 M=128": (1.1, 1.3, False),
    "G3 M=256": (0.85, 1.0, False),
    "G3 M=512": (0.85, 0.97, False),
    "G3 M=1024": (0.85, 0.97, False),
    "G3 M=2048": (0.85, 0.97, False),
    "G3 M=4096": (0.85, 0.97, False),
    "G3 minimum": (0.85, 0.95, False),
    "G4 M=1": (1.2, 1.8, False),
    **{f"G4 M={m}": (1.2, 2.0, False) for m in (2, 4)},
    **{f"G4 M={m}": (1.2, 3.0, False) for m in (8, 16, 32, 64)},
    **{f"G4 M={m}": (1.2, 1.4, False) for m in (128, 256, 512)},
    **{f"G4 M={m}": (1.1, 1.1, False) for m in (1024, 2048, 4096)},
    "G4 geomean": (1.2, 2.0, False),
    "G5": (1.0, 1.06, False),
    "G6": (1.15, 1.03, True),
    "G7": (0, 0, True),
    "G7 bitsandbytes on this GPU": (0, 0, True),
    "G8": (1.0, 0.2, True),
    "G9": (0, 0, True),
    "G9 time M=1": (None, 1.05, True),
    "G9 time M=64": (None, 1.05, True),
    "G10": (3, 1.3, True),
    "G11": (0.5, 0.85, False),
    "E1": (0.45, 0.70, False),
    "E1 70B": (0.45, 0.70, False),
    "E2": (1.6, 2.5, False),
    "memory 8B nf4": (0.01, 0.01, True),
    "memory 70B nf4": (0.01, 0.01, True),
    "copy bandwidth change": (0.03, 0.03, True),
}


# Wrong answers fail a run, and a rehearsal too; slow ones do not.
CORRECT = ("G7", "G8", "G9")


def lines(path):
    found = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:  # a step that was cut short
            found.append({"kind": "missing", "name": path.name, "why": "a line was cut short"})
    return found


def tests(out):
    counts = {"run": 0, "failed": 0, "skipped": 0}
    for path in sorted(out.glob("device_tests_*.json")):
        for suite in json.loads(path.read_text())["testsuites"]:
            for test in suite["testsuite"]:
                counts["run"] += test["status"] == "RUN"
                counts["failed"] += "failures" in test
                counts["skipped"] += test.get("result") == "SKIPPED"
    return counts


def verdict(name, figure):
    value = figure.get("value")
    floor, goal, lower = GOALS.get(name, (None, None, False))
    if value is None or goal is None:
        return ""
    reaches = (lambda bound: value <= bound) if lower else (lambda bound: value >= bound)
    if reaches(goal):
        return "goal"
    return "floor" if floor is not None and reaches(floor) else "below"


def number(value):
    return "" if value is None else f"{value:.4g}"


def table(header, rows):
    return ["| " + " | ".join(header) + " |", "|" + "--|" * len(header)] + ["| " + " | ".join(r) + " |" for r in rows] + [""]


def markdown(report, rehearsal):
    text = ["# The CUDA backend on a card" if not rehearsal else "# A rehearsal: no figure here means anything", ""]
    figures = {f["name"]: f for f in report["figures"]}
    rows = []
    for name in list(GOALS) + [n for n in figures if n not in GOALS]:
        figure = figures.get(name, {})
        floor, goal, lower = GOALS.get(name, (None, None, False))
        spread = f'{number(figure["min"])} – {number(figure["max"])}' if figure.get("min") is not None else ""
        shown = number(figure.get("value")) if figure else "not measured"
        rows.append([name + (" ↓" if lower else ""), number(floor), number(goal), shown, spread,
                     "" if rehearsal else verdict(name, figure)])
    text += table(["id", "floor", "goal", "rehearsal" if rehearsal else "figure", "spread", "reached"], rows)
    counts = report["tests"]
    text += [f'Device tests: {counts["run"]} run, {counts["failed"]} failed, {counts["skipped"]} skipped.', ""]
    text += table(["step", "exit code", "seconds", "limit"],
                  [[s["step"], str(s["code"]), str(s["seconds"]), str(s["limit"])] for s in report["steps"]])
    for missing in report["missing"]:
        text.append(f'Not measured: {missing["name"]}: {missing.get("why", "")}')
    text += ["", "## Behind the figures", ""]
    kinds = {}
    for row in report["rows"]:
        kinds.setdefault(row["name"], []).append({k: v for k, v in row.items() if k not in ("kind", "name")})
    for kind, some in kinds.items():
        keys = list(dict.fromkeys(k for row in some for k in row))
        show = lambda v: v if isinstance(v, str) else number(v)
        text += [f"### {kind}", ""] + table(keys, [[show(row.get(k)) for k in keys] for row in some])
    text += ["## The machine", "", "```", report["facts_log"].strip(), "```", ""]
    return "\n".join(text)


def main(argv):
    rehearsal = "--rehearse" in argv
    out = pathlib.Path([a for a in argv if a != "--rehearse"][0])
    everything = [line for part in ("products", "exact", "ops", "steps") for line in lines(out / f"bench_{part}.jsonl")]
    of_kind = lambda kind: [line for line in everything if line.get("kind") == kind]
    facts = out / "facts.log"
    report = {
        "rehearsal": rehearsal,
        "figures": of_kind("figure"),
        "rows": of_kind("row"),
        "facts": of_kind("fact"),
        "missing": of_kind("missing"),
        "tests": tests(out),
        "steps": lines(out / "steps.jsonl"),
        "facts_log": facts.read_text() if facts.exists() else "",
    }
    (out / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    (out / "report.md").write_text(markdown(report, rehearsal))
    figures = {f["name"]: f for f in report["figures"]}
    wrong = [n for n in CORRECT if verdict(n, figures.get(n, {})) not in ("goal", "floor")]
    if wrong:
        print("report.py: wrong or not measured:", *wrong, file=sys.stderr)
        return 1
    if report["tests"]["run"] == 0 or report["tests"]["failed"] > 0:
        print("report.py: no tests ran, or some failed", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

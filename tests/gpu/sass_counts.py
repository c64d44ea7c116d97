#!/usr/bin/env python3
"""Instructions in the hottest loop of each kernel of an object, cubin or program.

usage: sass_counts.py FILE [--kernel TEXT] [--arch sm_90a] [--weights N]

The hottest loop is the innermost one with the most tensor instructions, else the most shared loads,
else the most instructions. Loops inside it that only wait (an mbarrier not yet complete) are left
out. --weights: weights that one thread takes per round of that loop; prints instructions for each.
Needs cuobjdump: of a CUDA toolkit on PATH, or the one in the triton wheel. Runs no kernel.
"""
import argparse
import collections
import importlib.util
import os
import re
import shutil
import subprocess
import sys

TENSOR = ("HGMMA", "HMMA", "IMMA", "QGMMA", "IGMMA")
SHOWN = TENSOR + ("LDS", "LDSM", "STS", "PRMT", "LDG", "STG", "LDGSTS", "FFMA", "FMUL", "FADD",
                  "HFMA2", "HMUL2", "LOP3", "SHF", "IMAD", "IADD3", "R2UR", "SHFL", "BAR", "SYNCS",
                  "LDL", "STL")


def find_cuobjdump():
    found = shutil.which("cuobjdump")
    spec = importlib.util.find_spec("triton")
    if not found and spec and spec.submodule_search_locations:
        found = os.path.join(spec.submodule_search_locations[0], "backends/nvidia/bin/cuobjdump")
    if not found or not os.path.exists(found):
        sys.exit("sass_counts: no cuobjdump on PATH and no triton wheel in this Python")
    return found


Instruction = collections.namedtuple("Instruction", "address opcode text predicated")


def parse(text):
    """Yields (arch, kernel, [Instruction])."""
    arch, name, body = "?", None, []
    line_form = re.compile(r"^\s+/\*([0-9a-f]{4,})\*/\s+(.*?);")
    for line in text.splitlines():
        if m := re.match(r"^\s*arch = (\S+)", line):
            arch = m.group(1)
        elif m := re.match(r"^\s*(?:code for) (\S+)", line):
            arch = m.group(1)
        elif m := re.match(r"^\s*Function : (\S+)", line):
            if name:
                yield name_arch, name, body
            name, name_arch, body = m.group(1), arch, []
        elif name and (m := line_form.match(line)):
            words = m.group(2).split()
            predicated = words[0].startswith("@")
            if predicated:
                words = words[1:]
            body.append(Instruction(int(m.group(1), 16), words[0], " ".join(words), predicated))
    if name:
        yield name_arch, name, body


def successors(body):
    """Of every instruction, as indices: branches, convergence points, fall through."""
    index = {instruction.address: i for i, instruction in enumerate(body)}
    converges, result = {}, []
    for i, instruction in enumerate(body):
        base = instruction.opcode.split(".")[0]
        target = re.search(r"0x([0-9a-f]+)\s*$", instruction.text)
        to = index.get(int(target.group(1), 16)) if target else None
        after = [i + 1] if i + 1 < len(body) else []
        if base == "BSSY":
            converges[instruction.text.split()[1].rstrip(",")] = to
            result.append(after)
        elif base == "BSYNC":
            to = converges.get(instruction.text.split()[-1])
            result.append([to] if to is not None and not instruction.predicated else
                          after + ([to] if to is not None else []))
        elif base == "BRA":
            always = not instruction.predicated and len(instruction.text.split()) == 2
            result.append(([] if always else after) + ([to] if to is not None else []))
        elif base in ("EXIT", "RET", "BRX") and not instruction.predicated:
            result.append([])
        else:
            result.append(after)
    return result


def blocks_of(body, follow):
    """Basic blocks as lists of instruction indices, and the edges between them."""
    starts = {0}
    for i, after in enumerate(follow):
        if after != [i + 1]:
            starts.update(after)
            starts.add(i + 1)
    starts = sorted(s for s in starts if s < len(body))
    number = {start: b for b, start in enumerate(starts)}
    blocks = [list(range(s, e)) for s, e in zip(starts, starts[1:] + [len(body)])]
    edges = [[number[i] for i in follow[block[-1]]] for block in blocks]
    return blocks, edges


def natural_loops(edges):
    """Sets of blocks, one per header."""
    order, seen, stack = [], {0}, [(0, iter(edges[0]))]
    while stack:
        at, rest = stack[-1]
        for to in rest:
            if to not in seen:
                seen.add(to)
                stack.append((to, iter(edges[to])))
                break
        else:
            order.append(at)
            stack.pop()
    rank = {b: i for i, b in enumerate(reversed(order))}
    into = collections.defaultdict(list)
    for b in rank:
        for to in edges[b]:
            into[to].append(b)
    dominator = {0: 0}

    def meet(a, b):
        while a != b:
            while rank[a] > rank[b]:
                a = dominator[a]
            while rank[b] > rank[a]:
                b = dominator[b]
        return a

    changed = True
    while changed:
        changed = False
        for b in sorted(rank, key=rank.get)[1:]:
            known = [p for p in into[b] if p in dominator]
            best = known[0]
            for p in known[1:]:
                best = meet(best, p)
            if dominator.get(b) != best:
                dominator[b] = best
                changed = True

    loops = {}
    for b in rank:
        for header in edges[b]:
            a = b
            while a != header and a != 0:
                a = dominator[a]
            if a != header:
                continue
            loop = loops.setdefault(header, {header})
            stack = [b]
            while stack:
                at = stack.pop()
                if at not in loop:
                    loop.add(at)
                    stack.extend(into[at])
    return list(loops.values())


def hottest_loop(body):
    """Indices of the instructions of one round of the hottest loop."""
    blocks, edges = blocks_of(body, successors(body))
    loops = natural_loops(edges)

    def count(loop, names):
        return sum(body[i].opcode.split(".")[0] in names for b in loop for i in blocks[b])

    for names in (TENSOR, ("LDS",), None):
        found = [l for l in loops if names is None or count(l, names) > 0]
        inner = [l for l in found if not any(other < l for other in found)]
        if inner:
            size = (lambda l: count(l, names)) if names else (lambda l: sum(len(blocks[b]) for b in l))
            hottest = max(inner, key=size)
            waits = [l for l in loops if l < hottest]
            return sorted(i for b in hottest if not any(b in l for l in waits) for i in blocks[b])
    return list(range(len(body)))


def report(arch, name, body, weights):
    hot = hottest_loop(body)
    ops = collections.Counter(body[i].opcode.split(".")[0] for i in hot)
    everywhere = collections.Counter(i.opcode.split(".")[0] for i in body)
    print(f"{arch} {name}")
    print(f"  {len(body)} instructions; hottest loop {body[hot[0]].address:#x} … "
          f"{body[hot[-1]].address:#x}: {len(hot)}"
          + (f", {len(hot) / weights:.3f} per weight" if weights else ""))
    print("  " + "  ".join(f"{op} {ops[op]}" for op in SHOWN if ops[op]))
    local = everywhere["LDL"] + everywhere["STL"]
    if local:
        print(f"  local memory: {local} instructions, {ops['LDL'] + ops['STL']} in the loop")


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("file")
    options.add_argument("--kernel", default="", help="part of a kernel's name")
    options.add_argument("--arch", default="", help="sm_80, sm_89, sm_90a")
    options.add_argument("--weights", type=float, default=0, help="per thread and round")
    args = options.parse_args()
    sass = subprocess.run([find_cuobjdump(), "-sass", args.file], check=True, capture_output=True,
                          text=True).stdout
    demangle = shutil.which("c++filt")
    for arch, name, body in parse(sass):
        if demangle:
            name = subprocess.run([demangle, name], capture_output=True, text=True).stdout.strip()
        if args.kernel in name and args.arch in arch and body:
            report(arch, name, body, args.weights)


if __name__ == "__main__":
    main()

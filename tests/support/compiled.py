"""Reads a compiled program: what each device computes and sends, loops included.

XLA's own cost analysis counts the body of a loop once, whatever the number of its iterations.
"""

import math
import re
from typing import NamedTuple

COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "all-to-all",
    "collective-permute",
    "reduce-scatter",
    "collective-broadcast",
)
_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.-]+) = (.+)$")
_OPCODE = re.compile(r"(?:^|[\s)}])([a-z][a-z0-9-]*)\(")
_SHAPE = re.compile(r"\b([a-z]+[0-9]+[a-z0-9]*|pred)\[([0-9,]*)\]")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_CALLED = re.compile(r"(?:calls|to_apply|body|condition|(?:true|false)_computation)=%?([\w.-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")


class Instruction(NamedTuple):
    """An instruction of a compiled program."""

    name: str
    opcode: str
    shapes: tuple[tuple[int, ...], ...]  # of its results
    text: str
    times: int  # how often it runs


class Program(NamedTuple):
    """A compiled program, as one device runs it."""

    instructions: list[Instruction]

    def collectives(self, *kinds: str) -> list[Instruction]:
        """The collectives of these kinds, of any kind by default."""
        return [i for i in self.instructions if i.opcode in (kinds or COLLECTIVES)]

    def multiply_adds(self) -> int:
        """The multiply-adds of all matrix products, loops included."""
        shapes = {i.name: i.shapes[0] for i in self.instructions if i.shapes}
        return sum(_multiply_adds(i, shapes) * i.times for i in self.instructions)

    def loops(self) -> list[Instruction]:
        """The loops."""
        return [i for i in self.instructions if i.opcode == "while"]


class LoopBody(NamedTuple):
    """The body of a loop."""

    trips: int
    opcodes: list[str]  # of its instructions; an asynchronous one counts where it starts


def loop_bodies(compiled) -> list[LoopBody]:
    """The bodies of the loops of a compiled program with a known number of trips."""
    computations, _ = _computations(compiled.as_text())
    found = []
    for lines in computations.values():
        for line in lines:
            trips, body = _TRIPS.search(line), re.search(r"\bwhile\(.*\bbody=%?([\w.-]+)", line)
            if trips is None or body is None:
                continue
            instructions = [_INSTRUCTION.match(line) for line in computations[body[1]]]
            opcodes = [_OPCODE.search(match[2]) for match in instructions if match is not None]
            kinds = [opcode[1] for opcode in opcodes if opcode is not None]
            kinds = [kind.removesuffix("-start") for kind in kinds if not kind.endswith("-done")]
            found.append(LoopBody(int(trips[1]), kinds))
    return found


def read_program(compiled) -> Program:
    """The program of ``jax.jit(f).lower(...).compile()``."""
    computations, entry = _computations(compiled.as_text())
    instructions: list[Instruction] = []
    _collect(computations, entry, 1, instructions)
    return Program(instructions)


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
    found: dict[str, list[str]] = {}
    name = entry = ""
    for line in text.splitlines():
        if line.rstrip().endswith("{") and "->" in line:
            head = line.removeprefix("ENTRY ").lstrip("%")
            name = re.split(r"[\s(]", head, maxsplit=1)[0]
            found[name] = []
            entry = name if line.startswith("ENTRY") else entry
        elif name and " = " in line:
            found[name].append(line)
    return found, entry


def _collect(computations, name: str, times: int, out: list[Instruction]) -> None:
    for line in computations[name]:
        match = _INSTRUCTION.match(line)
        if match is None:
            continue
        label, rest = match.groups()
        opcode = _OPCODE.search(rest)
        if opcode is None:
            continue
        shapes = tuple(
            tuple(int(n) for n in dims.split(",") if n)
            for _, dims in _SHAPE.findall(rest[: opcode.start(1)])
        )
        kind = opcode[1].removesuffix("-start")
        out.append(Instruction(label, kind, shapes, line.strip(), times))
        trips = _TRIPS.search(rest) if kind == "while" else None
        called = _CALLED.findall(rest)
        for branches in _BRANCHES.findall(rest):
            called += [branch.strip().lstrip("%") for branch in branches.split(",")]
        if kind in ("reduce", "scatter", "sort", "reduce-window", "map", "all-reduce"):
            continue  # what they call is applied to scalars
        for other in called:
            if other in computations:
                _collect(computations, other, times * int(trips[1]) if trips else times, out)


def _multiply_adds(instruction: Instruction, shapes: dict[str, tuple[int, ...]]) -> int:
    if instruction.opcode != "dot":
        return 0
    arguments = re.search(r"\bdot\(([^)]*)\)", instruction.text)
    contracted = re.search(r"lhs_contracting_dims=\{([0-9,]*)\}", instruction.text)
    assert arguments is not None and contracted is not None
    first = re.findall(r"%([\w.-]+)", arguments[1])[0]
    sizes = [shapes[first][int(axis)] for axis in contracted[1].split(",") if axis]
    return math.prod(instruction.shapes[0]) * math.prod(sizes)

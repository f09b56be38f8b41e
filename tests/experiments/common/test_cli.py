"""The command line: what a command prints, and its exit status."""

import platform
import signal
import subprocess
import sys
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from experiments.common.cli import command, parse
from experiments.common.errors import UserError


@dataclass(frozen=True)
class Config:
    """The options."""

    size: int = 1
    """A size."""


DOCS = """A first paragraph
of two lines.

A history that `--help` leaves out.

    python -m experiments.one
"""


def run(monkeypatch, main, *arguments):
    monkeypatch.setattr(sys, "argv", ["one", *arguments])
    with pytest.raises(SystemExit) as caught:
        command(main, Config, DOCS)
    return caught.value.code


def test_an_error_of_the_user_is_the_message_alone(monkeypatch):
    def main(config):
        raise UserError(f"no such size: {config.size}")

    assert run(monkeypatch, main, "--size", "3") == "error: no such size: 3"


def test_the_status_after_a_signal_is_that_of_a_shell(monkeypatch):
    outcome = SimpleNamespace(signal=signal.SIGTERM)
    assert run(monkeypatch, lambda config: SimpleNamespace(outcome=outcome)) == 128 + 15
    command(lambda config: SimpleNamespace(outcome=SimpleNamespace(signal=None)), Config, DOCS)


def test_help_has_the_first_paragraph_and_the_commands(monkeypatch, capsys):
    assert run(monkeypatch, lambda config: None, "--help") == 0
    shown = capsys.readouterr().out
    assert "A first paragraph" in shown and "python -m experiments.one" in shown
    assert "A size." in shown and "A history" not in shown


def test_a_preset_replaces_the_defaults():
    presets = {"large": Config(9)}
    assert parse(Config, ["large"], DOCS, presets) == Config(9)
    assert parse(Config, ["large", "--size", "2"], DOCS, presets) == Config(2)
    assert parse(Config, [], DOCS, presets) == Config(1)


FAULTS = """
import resource, sys, threading
from experiments.common.cli import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        b"x" * 2**26
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

if "keep" in sys.argv:
    keep_freed_memory()
for _ in range(2):
    thread = threading.Thread(target=faults)
    thread.start()
    thread.join()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_memory_that_is_freed_is_not_mapped_again():
    """Page faults of a thread that takes 64 MiB eight times, after another one did."""

    def second(*arguments):
        done = subprocess.run(
            [sys.executable, "-c", FAULTS, *arguments], capture_output=True, text=True, check=True
        )
        return int(done.stdout.split()[1])

    assert second() > 8 * 2**26 / 4096 / 2
    assert second("keep") < 1000

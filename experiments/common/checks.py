"""Checks of options; each `ValueError` names the option, what it may be, and what it was."""

from typing import Any


def at_least(least: int, config: Any, *names: str) -> None:
    """Raises `ValueError` for a number that is less; None passes."""
    for name in names:
        value = getattr(config, name)
        if value is not None and value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")


def positive(config: Any, *names: str) -> None:
    """Raises `ValueError` for a number that is not greater than 0."""
    for name in names:
        if not getattr(config, name) > 0:
            raise ValueError(f"{name} must be greater than 0, got {getattr(config, name)}")


def not_negative(config: Any, *names: str) -> None:
    """Raises `ValueError` for a number that is not 0 or more."""
    for name in names:
        if not getattr(config, name) >= 0:
            raise ValueError(f"{name} must be 0 or more, got {getattr(config, name)}")


def rate(config: Any, *names: str) -> None:
    """Raises `ValueError` for a number that is not in [0, 1)."""
    for name in names:
        if not 0 <= getattr(config, name) < 1:
            raise ValueError(f"{name} must be in [0, 1), got {getattr(config, name)}")


def one_of(choices: tuple[Any, ...], config: Any, *names: str) -> None:
    """Raises `ValueError` for what is not among the choices."""
    for name in names:
        if getattr(config, name) not in choices:
            raise ValueError(f"{name} must be one of {choices}, got {getattr(config, name)!r}")

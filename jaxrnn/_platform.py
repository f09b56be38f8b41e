"""The platform that a program is compiled for, which is not always that of the process.

The schedule for a CPU differs from that for an accelerator: in the size of chunks, in what is
parallel in time, in how often a loop is unrolled. JAX knows the platform of a program only when it
is lowered. Tracing all schedules with `jax.lax.platform_dependent` would take the choice from
there, but every program for a CPU would be traced and differentiated twice. So the platform is read
off what JAX knows while it traces, and several schedules are traced only where several are wanted.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any

import jax

CPU, ACCELERATOR = "cpu", "accelerator"
"""The kinds of platforms for which schedules differ."""

_named: contextvars.ContextVar[tuple[str, ...]] = contextvars.ContextVar("platforms", default=())


@contextlib.contextmanager
def for_platforms(*names: str) -> Iterator[None]:
    """Traces programs for these platforms, instead of the platform of this process.

    Engines schedule a loop for the platform of the program. That is, in this order: the platforms
    named here; that of the mesh over which the arrays are sharded, devices of a topology included;
    that of `jax.default_device`; that of the process. Only `jax.export` to other platforms needs
    this context: JAX tells them after tracing. A program for several platforms contains a schedule
    for each, of which the compiler sees the one that it compiles.

    The context must be active while a function is traced; `jax.jit` does not trace a function
    again that it has traced before.

    Args:
        names: platforms as `jax.export` names them: ``"cpu"``, ``"cuda"``, ``"rocm"``, ``"tpu"``.

    Raises:
        ValueError: there is no name, or one is unknown.

    Example:
        >>> import jax, jax.export, jaxrnn as rnn
        >>> cell = rnn.MinGRU(4)
        >>> params = cell.init(jax.random.key(0), input_size=3)
        >>> run = jax.jit(lambda xs: rnn.unroll(cell, params, xs)[1])
        >>> with rnn.for_platforms("cpu", "cuda"):
        ...     export = jax.export.export(run, platforms=("cpu", "cuda"))
        ...     exported = export(jax.numpy.ones((9, 2, 3)))
        >>> exported.platforms
        ('cpu', 'cuda')
    """
    known = ("cpu", "cuda", "rocm", "tpu")
    if not names or any(name not in known for name in names):
        raise ValueError(f"names must be some of {known}, got {names}")
    token = _named.set(names)
    try:
        yield
    finally:
        _named.reset(token)


def named_platforms() -> tuple[str, ...]:
    """The platforms of the innermost `for_platforms`, or none."""
    return _named.get()


def platforms_of(*trees: Any) -> tuple[str, ...]:
    """The platforms for which a function of these arrays is traced, as `jax.export` names them."""
    if _named.get():
        return _named.get()
    name: str = devices_of(*trees)[0].platform
    return ({"gpu": "cuda"}.get(name, name),)


def devices_of(*trees: Any) -> list[Any]:
    """The devices for which a function of these arrays is traced, whatever `for_platforms` names.

    Of a mesh there is one `jax.sharding.AbstractDevice`, which has the platform and a name.
    """
    device = _of_meshes(trees)
    if device is not None:
        return [device]
    default = jax.config.jax_default_device  # pyright: ignore[reportAttributeAccessIssue]
    return jax.devices(default) if default is None or isinstance(default, str) else [default]


def _of_meshes(trees: Any) -> Any:
    """The devices over which arrays are sharded, if their types tell it."""
    shardings = [jax.typeof(leaf).sharding for leaf in jax.tree.leaves(trees)]
    meshes = [sharding.mesh for sharding in shardings if sharding is not None]
    for mesh in [*meshes, jax.sharding.get_abstract_mesh()]:
        if mesh.abstract_device is not None:
            return mesh.abstract_device
    return None


def kind_of(*trees: Any) -> str:
    """The first of `kinds_of`: for analyses, whose result is no program."""
    return kinds_of(*trees)[0]


def kinds_of(*trees: Any) -> tuple[str, ...]:
    """The kinds of `platforms_of`, each once."""
    names = platforms_of(*trees)
    return tuple(dict.fromkeys(CPU if name == "cpu" else ACCELERATOR for name in names))


def by_platform(run: Callable[..., Any], *args: Any) -> Any:
    """``run(kind, *args)`` for the kind of platform that the program is compiled for.

    Args:
        run: called once for each kind in `kinds_of` the arguments; all results have the same types.
        args: pytrees of arrays.
    """
    kinds = kinds_of(*args)
    if len(kinds) == 1:
        return run(kinds[0], *args)
    names = {CPU: ("cpu",), ACCELERATOR: tuple(name for name in platforms_of() if name != "cpu")}

    def branch(kind: str) -> Callable[..., Any]:
        def traced(*args):
            with for_platforms(*names[kind]):
                return run(kind, *args)

        return traced

    return jax.lax.platform_dependent(*args, cpu=branch(CPU), default=branch(ACCELERATOR))

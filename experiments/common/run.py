"""A run of an experiment: where it is written, and all that decides what it computes."""

import dataclasses
import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from experiments.common.options import Options

# These do not change what a run computes, except that devices change the order of sums.
_REPORTING = (
    "minutes patience out fresh log_every validate_every checkpoint_every keep "
    "devices shard distributed coordinator processes process wait heartbeat"
)


def identity(config: Any, *, reporting: Collection[str] = (), **more: Any) -> dict[str, Any]:
    """All that decides what a run computes, as JSON values.

    Args:
        config: the configuration, a dataclass with a field `training: Options`.
        reporting: the fields of `config` that change only what is reported.
        **more: what else decides, such as a digest of the data.
    """
    fields = dataclasses.asdict(config)
    fields |= fields.pop("training")
    kept = fields.keys() - {*reporting, *_REPORTING.split()}
    return json.loads(json.dumps({name: fields[name] for name in kept} | more, default=str))


def run_folder(options: Options, experiment: str, identity: Mapping[str, Any]) -> Path:
    """The output folder: the `out` option, else one that is unique to the run's identity."""
    if options.out is not None:
        return options.out
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return Path("runs") / experiment / digest[:8]

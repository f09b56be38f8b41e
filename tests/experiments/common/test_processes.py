"""Several processes train as one, agree, and end together; killed ones resume."""

import random
import re
import signal
import time

import numpy as np
import pytest

from experiments.common import processes
from experiments.common.errors import UserError
from experiments.common.metrics import Log
from experiments.common.options import Options
from tests.support.processes import finish, free_port, running
from tests.support.toy import assert_same_state, final_state, run

WORKER = "tests.support.worker"
VALIDATION = ("validation_loss",)  # a run that is stopped between two log lines has one more


def assert_near(folder, other, kinds=("loss", "validation_loss")):
    """Whether two runs ended in the same state and logged the same losses, to rounding."""
    step, tensors = final_state(folder)
    other_step, others = final_state(other)
    assert step == other_step and tensors.keys() == others.keys()
    for name, value in tensors.items():
        np.testing.assert_allclose(value, others[name], rtol=2e-5, atol=2e-6, err_msg=name)
    losses, expected = (losses_of(each, kinds) for each in (folder, other))
    assert losses.keys() == expected.keys()
    for key, value in expected.items():
        assert losses[key] == pytest.approx(value, rel=1e-5), key


def losses_of(folder, kinds=("loss", "validation_loss")):
    lines = Log(folder / "metrics.jsonl").read()
    return {(line["step"], kind): line[kind] for line in lines for kind in kinds if kind in line}


def train_alone(folder):
    run(folder, devices=1, average=0.9, accumulate=2)


def kill(folder, **faults):
    """Trains in two processes of which one is killed; returns what the other printed."""
    began = time.monotonic()
    with running(folder.parent, WORKER, {"out": folder, "heartbeat": 6}, **faults) as both:
        killed = [bool(fault) for fault in both.faults].index(True)
        statuses = both.wait(60)
        said = both.text(1 - killed)
    assert time.monotonic() - began < 60
    assert statuses[killed] == -signal.SIGKILL and statuses[1 - killed] != 0
    assert "If a process ends early" in said and "Start all of them again, or fewer" in said
    return said


def test_a_killed_run_of_two_processes_resumes_to_the_result_of_one(tmp_path):
    said = kill(tmp_path / "killed", faults=("", "SIGKILL 15"))
    assert re.search(r"[Tt]ask 1 |unhealthy \(stopped sending heartbeats\):\n1\n", said), said
    assert final_state(tmp_path / "killed")[0] == 12
    again = finish(tmp_path, WORKER, {"out": tmp_path / "killed"})
    assert "resumes from step 12" in again
    train_alone(tmp_path / "one")
    assert_near(tmp_path / "killed", tmp_path / "one")


@pytest.mark.thorough
@pytest.mark.parametrize("coordinator", [True] * 3 + [False] * 7)
def test_runs_killed_at_random_moments_equal_an_uninterrupted_one(tmp_path, whole, coordinator):
    """Bit for bit with as many processes; to rounding with one."""
    chance = random.Random(str(tmp_path))
    folder = tmp_path / "killed"
    options = {"out": folder, "heartbeat": 6, "wait": 30}
    with running(tmp_path, WORKER, options, pace=0.1) as both:
        if chance.random() < 0.3:
            time.sleep(chance.uniform(0, 6))  # while they start, connect and compile
        else:
            both.wait_for(lambda: (folder / "checkpoints" / "step_00000006").exists())
            time.sleep(chance.uniform(0, 1.5))
        victim = 0 if coordinator else 1
        assert all(process.poll() is None for process in both.all)
        both.all[victim].kill()
        began = time.monotonic()
        statuses = both.wait(60)
        assert time.monotonic() - began < 60 and any(statuses)
    if chance.random() < 0.3:
        finish(tmp_path, WORKER, {"out": folder}, count=1, devices=1)
        assert_near(folder, whole)
    else:
        finish(tmp_path, WORKER, {"out": folder})
        assert_same_state(final_state(folder), final_state(whole))
        assert losses_of(folder) == losses_of(whole)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of an uninterrupted run of two processes."""
    folder = tmp_path_factory.mktemp("whole")
    finish(folder, WORKER, {"out": folder})
    return folder


@pytest.mark.thorough
def test_a_process_alone_resumes_what_two_began(tmp_path, whole):
    finish(tmp_path, WORKER, {"out": tmp_path / "out", "minutes": 1e-9})
    assert 0 < final_state(tmp_path / "out")[0] < 24
    finish(tmp_path, WORKER, {"out": tmp_path / "out"}, count=1, devices=4)
    assert_near(tmp_path / "out", whole, VALIDATION)


@pytest.mark.thorough
@pytest.mark.parametrize("shard", ["optimizer", "parameters"])
def test_sharded_over_two_processes_it_trains_as_one(tmp_path, shard):
    out = {"out": tmp_path / "out", "shard": shard}
    finish(tmp_path, WORKER, out | {"minutes": 1e-9})
    finish(tmp_path, WORKER, out)
    train_alone(tmp_path / "one")
    assert_near(tmp_path / "out", tmp_path / "one", VALIDATION)


@pytest.mark.thorough
@pytest.mark.parametrize("receiver", [0, 1])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_of_one_process_stops_all_at_the_same_step(tmp_path, whole, receiver, number):
    out, faults = {"out": tmp_path / "out"}, ["", ""]
    faults[receiver] = f"{number.name} 8"
    with running(tmp_path, WORKER, out, faults=faults) as both:
        assert both.wait() == [128 + number] * 2
        ends = [re.findall(r"ends \d (\d+)", both.text(i)) for i in (0, 1)]
    assert ends[0] == ends[1] and int(ends[0][0]) in (9, 10, 11)
    assert f"stopped by {number.name}" in both.text(0)
    finish(tmp_path, WORKER, out)
    assert_same_state(final_state(tmp_path / "out"), final_state(whole))


@pytest.mark.thorough
def test_a_loss_that_is_not_finite_is_an_error_in_all(tmp_path):
    out = {"out": tmp_path / "out"}
    with running(tmp_path, WORKER, out, faults=("", "nan 9")) as both:
        assert both.wait() == [1, 1]
        assert all("error: step 9: the loss is nan" in both.text(i) for i in (0, 1))
    assert final_state(tmp_path / "out")[0] == 6


@pytest.mark.thorough
def test_an_error_of_one_process_ends_all(tmp_path):
    out = {"out": tmp_path / "out", "heartbeat": 6}
    with running(tmp_path, WORKER, out, faults=("", "error 9")) as both:
        assert all(both.wait(60))
        assert "OSError: the disk is gone" in both.text(1)
        assert "process 1 of 2 ends" in both.text(1)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("own", "difference"),
    [
        (({}, {"seed": 4}), "error: seed: process 0 has 3 and process 1 has 4; start all"),
        (({}, {"steps": 30}), "error: steps: process 0 has 24 and process 1 has 30; start all"),
        (({}, {"validate-every": 3}), "error: validate_every: process 0 has 8 and process 1 has 3"),
    ],
)
def test_other_options_are_refused_before_the_first_step(tmp_path, own, difference):
    out = {"out": tmp_path / "out"}
    with running(tmp_path, WORKER, out, own=own) as both:
        assert both.wait() == [1, 1]
        assert all(difference in both.text(i) for i in (0, 1))
    assert not (tmp_path / "out").exists()


def slurm(number, port):
    """What SLURM sets; JAX derives the port from the number of the job."""
    variables = {"JOB_ID": port - 61440, "STEP_NODELIST": "localhost", "NTASKS": 2}
    variables |= {"PROCID": number, "LOCALID": number}
    return {f"SLURM_{name}": str(value) for name, value in variables.items()}


def open_mpi(number, port):
    """What version 4 of Open MPI sets."""
    uri = f"{(port - 61440) * 4096}.0;tcp://127.0.0.1:1"
    variables = {"WORLD_SIZE": 2, "WORLD_RANK": number, "WORLD_LOCAL_RANK": number}
    variables = {f"OMPI_COMM_{name}": str(value) for name, value in variables.items()}
    return variables | {"OMPI_MCA_orte_hnp_uri": uri, "OMPI_VERSION": "4.1.6"}


@pytest.mark.thorough
@pytest.mark.parametrize("cluster", [slurm, open_mpi])
def test_processes_of_a_cluster_find_each_other(tmp_path, whole, cluster):
    port = free_port(61440)
    environments = [cluster(number, port) for number in (0, 1)]
    finish(tmp_path, WORKER, {"out": tmp_path / "out"}, environments=environments)
    assert_same_state(final_state(tmp_path / "out"), final_state(whole))


@pytest.mark.thorough
def test_without_a_cluster_it_is_an_error(tmp_path):
    with running(tmp_path, WORKER, {"distributed": None}, count=1) as one:
        assert one.wait() == [1]
        assert "error: distributed: the processes could not be connected" in one.text(0)


@pytest.mark.thorough
def test_another_folder_is_refused(tmp_path):
    own = ({"out": tmp_path / "one"}, {"out": tmp_path / "two"})
    with running(tmp_path, WORKER, {}, own=own) as both:
        assert both.wait() == [1, 1]
        assert "error: out: process 1 does not see" in both.text(0)


def test_without_a_coordinator_there_is_an_error_in_time():
    address, began = f"127.0.0.1:{free_port()}", time.monotonic()
    options = Options(coordinator=address, processes=2, process=1, wait=1, devices=1)
    with pytest.raises(UserError, match=f"no answer from {address} in 1 seconds.*start process 0"):
        processes.start(options)
    assert 1 <= time.monotonic() - began < 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(coordinator="a:1", processes=2), "--process I go together, got a:1, 2 and None"),
        (dict(coordinator="a:1", processes=2, process=2), "process must be from 0 to 1, got 2"),
        (dict(coordinator="a", processes=2, process=1), "must be HOST:PORT, got 'a'"),
    ],
)
def test_incomplete_options_are_refused(options, message):
    with pytest.raises(UserError, match=re.escape(message)):
        processes.start(Options(devices=1, **options))

# SPDX-License-Identifier: Apache-2.0
"""Processes of one run: their places, what is refused by name, and how a lost one ends the rest."""

import re
import signal

import pytest

from bcmb_jax.cluster import Place, find_place, first_host, local_devices
from bcmb_jax.errors import InputError, PeerLostError
from bcmb_jax.peers import ALONE, Peers
from tests.fixtures.processes import finish, free_port, start, together

SLURM = {
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NODELIST": "gpu[003-004]",
    "SLURM_JOB_ID": "4711",
}
MPI = {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "0"}


def test_slurm_open_mpi_and_the_command_line_give_a_place():
    assert find_place({}) is None
    assert find_place({"SLURM_STEP_NUM_TASKS": "1"}) is None
    place = find_place(SLURM)
    assert place[1:] == (4, 3, 2)
    assert place.coordinator.startswith("gpu003:")
    assert find_place(SLURM, "head:1234").coordinator == "head:1234"
    local = find_place(MPI | {"OMPI_COMM_WORLD_LOCAL_SIZE": "4", "PMIX_NAMESPACE": "prterun-a-9@1"})
    assert local.coordinator.startswith("127.0.0.1:")
    for job in (
        {"PMIX_NAMESPACE": "prterun-node-7-9@1"},
        {"OMPI_MCA_orte_hnp_uri": "15.0;tcp://node-7,10.1.0.1:34911"},
    ):
        place = find_place(MPI | {"OMPI_COMM_WORLD_LOCAL_SIZE": "2"} | job)
        assert place.coordinator.startswith("node-7:")
        assert place[1:] == (4, 2, 2)
    assert find_place({}, "a:1", 2, 1) == Place("a:1", 2, 1)


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("a1", "a1"), ("a1,b2", "a1"), ("n[001-004,9]", "n001"), ("n[7,9],m1", "n7")],
)
def test_the_first_of_slurms_nodes(nodes, first):
    assert first_host(nodes) == first


def test_processes_of_a_host_share_its_gpus():
    four = {"CUDA_VISIBLE_DEVICES": "0,1,2,3"}
    assert local_devices(SLURM | four) == [2, 3]
    assert local_devices(SLURM | four | {"SLURM_GPUS_PER_TASK": "4"}) is None
    assert local_devices(SLURM | {"CUDA_VISIBLE_DEVICES": "5"}) is None
    assert local_devices(four) is None
    assert local_devices(MPI | four | {"OMPI_COMM_WORLD_LOCAL_SIZE": "4"}) == [0]


@pytest.mark.parametrize(
    ("environment", "given", "message"),
    [
        (SLURM, ("localhost:1234",), "localhost:1234 is a loopback address"),
        (SLURM, ("127.0.1.1:1234",), "is a loopback address"),
        ({}, ("host", 2, 0), "'host' is not of the form HOST:PORT"),
        ({}, ("host:99999", 2, 0), "not of the form HOST:PORT"),
        ({}, ("host:1", 2, 2), "give all three"),
        ({}, ("", 2, 1), "give all three"),
        (MPI | {"OMPI_COMM_WORLD_LOCAL_SIZE": "2"}, (), "give --coordinator"),
    ],
)
def test_a_wrong_place_is_refused_by_name(environment, given, message):
    with pytest.raises(InputError, match=message):
        find_place(environment, *given)


def test_who_does_not_come_is_named():
    port = free_port()
    with pytest.raises(PeerLostError, match=rf"processes \[1, 2\] of 3 .*:{port} in 0.2 s"):
        Peers(Place(f"localhost:{port}", 3, 0), 0.2)
    with pytest.raises(PeerLostError, match=f"nobody answers at the coordinator localhost:{port}"):
        Peers(Place(f"localhost:{port}", 3, 1), 0.2)
    # A name that no server is asked for: the suite runs without a network.
    with pytest.raises(InputError, match=r"unknown host \[fe80::nowhere\]"):
        Peers(Place("[fe80::nowhere]:1", 3, 1), 0.2)


def test_values_of_all_reach_all():
    assert ALONE.gather("a number", 5) == [5]
    found = together(3, lambda peers: [peers.gather("a", peers.place.process + n) for n in (0, 9)])
    assert found == [[[0, 1, 2], [9, 10, 11]]] * 3


def test_the_first_difference_ends_all():
    def work(peers):
        own = {"seed": 1, "steps": 5 + (peers.place.process == 2)}
        peers.agree("configuration", own)

    for error in together(3, work):
        assert isinstance(error, InputError)
        assert "process 2 on " in str(error)
        assert "another configuration than process 0" in str(error)
        assert "steps is 6 there and 5 here" in str(error)


PROCESS = """
import sys, time
from bcmb_jax import peers
from bcmb_jax.cluster import Place
peers.BEAT_SECONDS = 0.4  # a busy machine may keep a process waiting for a second
process = int(sys.argv[2])
with peers.Peers(Place(f"localhost:{sys.argv[1]}", 3, process), 20) as joined:
    joined.gather("start", None)
    print("joined", flush=True)
    joined.gather("told", None)  # nobody fails before all have told
    if sys.argv[3] == "fails" and process == 1:
        raise peers.InputError("a wrong setting")
    time.sleep(60)
"""


@pytest.mark.parametrize(
    ("how", "number", "status", "line"),
    [
        (signal.SIGKILL, 1, 69, "process 1 on .* is gone; start the same command again"),
        (signal.SIGKILL, 0, 69, "process 0 on .* is gone; start the same command again"),
        (signal.SIGSTOP, 1, 69, r"process 1 on .* is silent for \d"),
        ("fails", 1, 2, "a wrong setting"),
    ],
)
def test_a_lost_process_ends_the_others(how, number, status, line):
    port = free_port()
    started = [start("-c", PROCESS, port, i, how if how == "fails" else "") for i in range(3)]
    if how != "fails":  # else the same read could take the message too
        for process in started:
            assert process.stdout.readline() == "joined\n"
        started[number].send_signal(how)
    others = [p for i, p in enumerate(started) if i != number]
    try:
        ended = finish(others, 40)
    finally:
        started[number].kill()
        started[number].communicate()
    for code, text in ended:
        assert code == status
        assert len(text.removeprefix("joined\n").splitlines()) == 1
        assert re.search(line, text)

"""Processors that a process may use, by control groups of both versions and by the environment."""

import os

import pytest

from pytest_llmprobe.report import cores
from pytest_llmprobe.report.cores import cpu_quota, cpu_threads, usable_cores

UNLIMITED = {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}
IN_A_CONTAINER = {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "250000 100000\n"}
NESTED = {
    "proc/self/cgroup": "0::/user.slice/job\n",
    "sys/fs/cgroup/user.slice/cpu.max": "400000 100000\n",
    "sys/fs/cgroup/user.slice/job/cpu.max": "max 100000\n",
}
INNER = NESTED | {"sys/fs/cgroup/user.slice/job/cpu.max": "50000 100000\n"}
VERSION_1 = {
    "proc/self/cgroup": "9:memory:/docker/ab\n4:cpu,cpuacct:/docker/ab\n0::/system\n",
    "sys/fs/cgroup/cpu,cpuacct/docker/ab/cpu.cfs_quota_us": "300000\n",
    "sys/fs/cgroup/cpu,cpuacct/docker/ab/cpu.cfs_period_us": "100000\n",
    "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
    "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
}
ROOT_OF_A_CONTAINER = {
    "proc/self/cgroup": "1:cpu:/docker/nowhere\n",
    "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "150000\n",
    "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
}
OF_ANOTHER = {
    "proc/self/cgroup": "5:cpuset:/small\n0::/large\n",
    "sys/fs/cgroup/small/cpu.max": "1000 100000\n",
    "sys/fs/cgroup/cpu.max": "nonsense\n",
}


@pytest.fixture
def system(tmp_path, monkeypatch):
    def made(files):
        for name, content in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(content)
        monkeypatch.setattr(cores, "SYSTEM", tmp_path)
        return tmp_path

    return made


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, None),
        (UNLIMITED, None),
        (IN_A_CONTAINER, 2.5),
        (NESTED, 4.0),
        (INNER, 0.5),
        (VERSION_1, 3.0),
        (ROOT_OF_A_CONTAINER, 1.5),
        (OF_ANOTHER, None),
    ],
)
def test_a_quota_is_the_least_of_the_groups_above(system, files, quota):
    assert cpu_quota(system(files)) == quota


@pytest.mark.parametrize(
    ("files", "affinity", "usable"),
    [(UNLIMITED, 8, 8), (IN_A_CONTAINER, 8, 2), (IN_A_CONTAINER, 1, 1), (INNER, 8, 1)],
)
def test_affinity_and_quota_both_count(system, monkeypatch, files, affinity, usable):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(affinity)), raising=False)
    system(files)
    assert usable_cores() == usable


@pytest.mark.parametrize(
    ("processes", "asked", "threads"),
    [
        *((1, None, 8), (2, None, 4), (3, None, 2), (9, None, 1)),
        *((1, "3", 3), (2, "3", 3), (4, "3", 2), (1, "16", 8), (2, "4,2", 4), (2, " 1 ", 1)),
        *((2, "", 4), (2, "0", 4), (2, "many", 4)),
    ],
)
def test_workers_share_the_cores_and_never_have_more(
    monkeypatch, system, processes, asked, threads
):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    system(UNLIMITED)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if asked is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert cpu_threads(processes) == threads
    assert cpu_threads(processes) * processes <= max(8, processes)

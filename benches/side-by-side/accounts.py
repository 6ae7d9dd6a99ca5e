"""What processes and the machine have used, and what baton and HAProxy have counted."""

import json
import os
import socket
import subprocess

TICKS = os.sysconf("SC_CLK_TCK")


def family_of(pid):
    """The process and its children: nginx has a worker."""
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        return [pid, *map(int, file.read().split())]


def cpu_of(pid):
    """Seconds on a processor, of all threads: in nanoseconds there, where /proc/PID/stat has ticks of 10 ms."""
    total = 0
    for process in family_of(pid):
        for task in os.listdir(f"/proc/{process}/task"):
            with open(f"/proc/{process}/task/{task}/schedstat", encoding="ascii") as file:
                total += int(file.read().split()[0])
    return total / 1e9


def forget_peak(pid):
    for process in family_of(pid):
        with open(f"/proc/{process}/clear_refs", "w", encoding="ascii") as file:
            file.write("5")


def peak_of(pid):
    """Most resident octets since `forget_peak`."""
    total = 0
    for process in family_of(pid):
        with open(f"/proc/{process}/status", encoding="ascii", errors="replace") as file:
            total += sum(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM:"))
    return total


def machine():
    """Seconds of all processors: at work in whatever way, of these in interrupts, and taken by the machine below."""
    with open("/proc/stat", encoding="ascii") as file:
        user, nice, system, _idle, _wait, irq, softirq, steal = map(int, file.readline().split()[1:9])
    work = user + nice + system + irq + softirq
    return {"machine": work / TICKS, "interrupts": (irq + softirq) / TICKS, "stolen": steal / TICKS}


def baton_counts(baton, directory):
    """Everything baton on a and b has counted."""
    found = {}
    for node in "ab":
        command = [baton, "stats", "--json", "--socket", f"{directory}/{node}/baton.sock"]
        answer = subprocess.run(command, capture_output=True, check=True, timeout=10)
        found[node] = json.loads(answer.stdout)
    return found


def haproxy_counts(directory):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(f"{directory}/h/haproxy.sock")
        connection.sendall(b"show info\n")
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    fields = dict(line.split(": ", 1) for line in answer.decode().splitlines() if ": " in line)
    # Some versions write Splicded.
    return {"spliced": sum(int(value) for name, value in fields.items() if name.startswith("TotalSplic"))}

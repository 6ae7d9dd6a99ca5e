"""What is asked of every middle, and what is asked of baton."""

from dataclasses import dataclass

MIDDLES = {
    "direct": "direct",
    "local": "baton, local",
    "overlay": "baton, handed off, overlay",
    "link": "baton, handed off, link",
    "auto": "baton, handed off, auto",
    "haproxy": "HAProxy",
    "nginx": "nginx as proxy",
}
HANDED_OFF = ("overlay", "link", "auto")


@dataclass(frozen=True)
class Workload:
    name: str
    title: str
    kind: str  # get or put, as `load` calls it
    size: int | None  # octets; None: what --gigabyte says
    figure: str  # what is measured: rate, throughput or latency
    concurrency: int = 1
    keep: bool = False
    pace: int | None = None  # microseconds from one connection to the next
    timed: bool = True  # for --seconds, else once

    def by_octets(self):
        """Whether processor time is counted per GB; else per 10,000 questions."""
        return self.figure == "throughput"


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("new-1k", "new connections, 1 KB", "get", 1024, "rate", concurrency=64),
        Workload("new-64k", "new connections, 64 KB", "get", 65536, "rate", concurrency=64),
        Workload("kept-alive", "kept-alive requests, 1 KB", "get", 1024, "rate", concurrency=64, keep=True),
        Workload("download-1m", "1 MB downloads", "get", 1048576, "throughput", concurrency=16),
        Workload("download-1g", "1 GB download", "get", None, "throughput", timed=False),
        Workload("upload-1g", "1 GB upload", "put", None, "throughput", timed=False),
        Workload("trickle", "time to first octet, 200 new connections a second", "get", 1024, "latency", concurrency=64, pace=5000),
    )
}

# What a run's figure is called, what it is divided by to be shown, and its unit.
FIGURES = {
    "rate": ("rate", 1, "/s"),
    "throughput": ("throughput", 1e9, "GB/s"),
    "latency": ("first_octet_p50", 1e-6, "us"),
}


@dataclass(frozen=True)
class Asked:
    """`value` of (workload, middle) compared with that of (workload, other)."""

    what: str
    workload: str
    middle: str
    other: str
    value: str  # a value of a run's line in figures.py
    relation: str  # at least, at most: of the ratio; within: at most `bound` seconds more
    bound: float


ASKED = (
    Asked("1 GB download, local / direct", "download-1g", "local", "direct", "throughput", "at least", 0.95),
    Asked("new connections, 1 KB, local / direct", "new-1k", "local", "direct", "rate", "at least", 0.90),
    Asked("1 GB download, handed off / HAProxy", "download-1g", "overlay", "haproxy", "throughput", "at least", 2.2),
    Asked("1 GB download, handed off / direct", "download-1g", "overlay", "direct", "throughput", "at least", 0.35),
    Asked("1 GB upload, link / HAProxy", "upload-1g", "link", "haproxy", "throughput", "at least", 1.5),
    Asked("1 GB upload, overlay / HAProxy", "upload-1g", "overlay", "haproxy", "throughput", "at least", 0.7),
    Asked("new connections, 1 KB, handed off / HAProxy", "new-1k", "overlay", "haproxy", "rate", "at least", 0.6),
    Asked("new connections, 64 KB, handed off / HAProxy", "new-64k", "overlay", "haproxy", "rate", "at least", 1.2),
    Asked("kept-alive requests, handed off / HAProxy", "kept-alive", "overlay", "haproxy", "rate", "at least", 1.0),
    Asked("kept-alive requests, link / HAProxy", "kept-alive", "link", "haproxy", "rate", "at least", 1.3),
    Asked("front-end CPU per GB downloaded, handed off / HAProxy", "download-1g", "overlay", "haproxy", "cpu front-end", "at most", 0.1),
    Asked("front-end CPU per GB downloaded, link / HAProxy", "download-1g", "link", "haproxy", "cpu front-end", "at most", 0.01),
    Asked("machine's CPU per GB downloaded, handed off / HAProxy", "download-1g", "overlay", "haproxy", "cpu machine", "at most", 0.6),
    Asked("time to first octet, p50, handed off over HAProxy", "trickle", "overlay", "haproxy", "first_octet_p50", "within", 150e-6),
    Asked("time to first octet, p99, handed off over direct", "trickle", "overlay", "direct", "first_octet_p99", "within", 1e-3),
)

"""Tables, for a terminal and for documents: the same rows, as cells of text."""

from figures import ROLES, asked, compared, figure_name, ratio
from workloads import MIDDLES, WORKLOADS


def number(value):
    """Three significant digits, without an exponent."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.{max(0, 2 - len(str(int(abs(value)))) + 1)}f}" if abs(value) >= 0.1 else f"{value:.4f}".rstrip("0")


def of_spread(spread, divisor=1.0):
    median, least, most = (spread[name] / divisor for name in ("median", "least", "most"))
    return f"{number(median)} ({number(least)}-{number(most)})"


def of_ratio(measured):
    return f"{measured[0]:.2f}" if measured else ""


def header(workload):
    unit = figure_name(workload)[2]
    per = "GB" if WORKLOADS[workload].by_octets() else "10,000"
    first = [f"{unit.strip('/') if unit == 'GB/s' else unit} (least-most)"]
    if WORKLOADS[workload].figure == "latency":
        first = ["p50 us (least-most)", "p99 us (least-most)"]
    return ["", *first, "/ direct", "/ HAProxy", *(f"{role}, s per {per}" for role in ROLES), "front-end, MB", "back-end, MB"]


def rows(lines, workload):
    name, divisor, _ = figure_name(workload)
    for (which, middle), line in lines.items():
        if which != workload:
            continue
        cells = [MIDDLES[middle], of_spread(line[name], divisor)]
        if WORKLOADS[workload].figure == "latency":
            cells.append(of_spread(line["first_octet_p99"], divisor))
        cells += [of_ratio(compared(lines, workload, middle, other, name, ratio)) for other in ("direct", "haproxy")]
        cells += [number(line[f"cpu {role}"]["median"]) if f"cpu {role}" in line else "" for role in ROLES]
        cells += [f"{line[f'peak {role}']['median'] / 1e6:.1f}" if f"peak {role}" in line else "" for role in ROLES[:2]]
        yield cells


ASKED_HEADER = ["", "asked", "measured (least-most)", ""]


def asked_rows(lines):
    for one, measured, met in asked(lines):
        in_microseconds = one.relation == "within"
        scale, form, unit = (1e6, "{:.0f}", " us") if in_microseconds else (1, "{:.3f}" if one.bound < 0.1 else "{:.2f}", "")
        bound = f"{'at most +' if in_microseconds else one.relation + ' '}{one.bound * scale:g}{unit}"
        if measured is None:
            yield [one.what, bound, "not measured", ""]
            continue
        median, least, most = (form.format(value * scale) for value in measured)
        if met:
            verdict = "met"
        elif in_microseconds:
            verdict = f"missed by {(measured[0] - one.bound) * scale:.0f} us"
        else:
            verdict = f"missed: {measured[0] / one.bound:.2f} of what was asked"
            if one.relation == "at most":
                verdict = f"missed: {measured[0] / one.bound:.1f} times what was asked"
        yield [one.what, bound, f"{median}{unit} ({least}-{most})", verdict]


def in_columns(head, body):
    """For a terminal."""
    table = [head, *body]
    widths = [max(len(row[column]) for row in table) for column in range(len(head))]
    for row in table:
        yield "  ".join(cell.ljust(width) if column == 0 else cell.rjust(width) for column, (cell, width) in enumerate(zip(row, widths)))


def in_markdown(head, body):
    yield "| " + " | ".join(head) + " |"
    yield "|---" + "|--:" * (len(head) - 1) + "|"
    for row in body:
        yield "| " + " | ".join(row) + " |"


def terminal(lines):
    for workload in WORKLOADS:
        body = list(rows(lines, workload))
        if body:
            yield from ("", WORKLOADS[workload].title)
            yield from in_columns(header(workload), body)
    yield from ("", "what was asked")
    yield from in_columns(ASKED_HEADER, asked_rows(lines))


def markdown(lines, conditions):
    yield from (conditions, "")
    yield from in_markdown(ASKED_HEADER, asked_rows(lines))
    for workload in WORKLOADS:
        body = list(rows(lines, workload))
        if body:
            yield from ("", f"**{WORKLOADS[workload].title}**", "")
            yield from in_markdown(header(workload), body)

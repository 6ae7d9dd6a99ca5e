"""The chart: for each workload what was reached, and the processor time of the whole machine, by who used it."""

import textwrap
from xml.sax.saxutils import escape

from figures import figure_name
from show import number
from workloads import MIDDLES, WORKLOADS

ROW, BAR, LABEL, PANEL, GAP, TOP = 20, 13, 190, 250, 100, 46
COLOURS = {"direct": "#8a8f98", "local": "#2a9d8f", "overlay": "#1d6fb8", "link": "#12467a", "auto": "#5aa0dc", "haproxy": "#d97706", "nginx": "#b45309"}
PARTS = {"front-end": "#c2410c", "back-end": "#1d6fb8", "server": "#6b7280", "client": "#aab0b8", "the rest": "#dfe3e8"}


def text(x, y, words, size=12, anchor="start", weight="normal", colour="#1f2328"):
    return f'<text x="{x:.0f}" y="{y:.0f}" font-size="{size}" text-anchor="{anchor}" font-weight="{weight}" fill="{colour}">{escape(words)}</text>'


def bar(x, y, width, colour):
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0.5):.1f}" height="{BAR}" fill="{colour}"/>'


def reached(line, workload, middle, most, x, y):
    """The median as a bar, least and most as a line across its end."""
    name, divisor, unit = figure_name(workload)
    spread = line[name]
    # Latency has more to say at its end.
    scale = PANEL / most * (0.75 if WORKLOADS[workload].figure == "latency" else 1)
    yield bar(x, y, spread["median"] * scale, COLOURS[middle])
    middle_of_bar = y + BAR / 2
    yield f'<path d="M{x + spread["least"] * scale:.1f} {middle_of_bar}H{x + spread["most"] * scale:.1f}" stroke="#1f2328"/>'
    words = number(spread["median"] / divisor) + " " + unit
    if WORKLOADS[workload].figure == "latency":
        words += f" (p99 {number(line['first_octet_p99']['median'] / divisor)})"
    yield text(x + spread["most"] * scale + 5, y + BAR - 2, words, 11)


def used(line, most, x, y):
    scale = PANEL / most
    total, at, shown = line["cpu machine"]["median"], x, 0
    for part, colour in PARTS.items():
        seconds = line[f"cpu {part}"]["median"] if f"cpu {part}" in line else 0
        if part.startswith("the rest"):
            seconds = max(0, total - shown)
        if seconds:
            yield bar(at, y, seconds * scale, colour)
        shown += seconds
        at += seconds * scale
    yield text(at + 5, y + BAR - 2, number(total), 11)


def svg(lines, conditions):
    parts, y = [], TOP
    second = LABEL + PANEL + GAP
    width = second + PANEL + 60
    parts.append(text(second, 20, "processor time of the whole machine, of that:", 11))
    at = second
    for part, colour in PARTS.items():
        parts += [f'<rect x="{at:.0f}" y="27" width="9" height="9" fill="{colour}"/>', text(at + 12, 36, part, 10)]
        at += 22 + 5.4 * len(part)
    for workload, described in WORKLOADS.items():
        mine = {middle: line for (which, middle), line in lines.items() if which == workload}
        if not mine:
            continue
        name = figure_name(workload)[0]
        most = max(line[name]["most"] for line in mine.values())
        most_used = max(line["cpu machine"]["median"] for line in mine.values()) or 1
        y += 22
        parts.append(text(10, y, described.title, 13, weight="bold"))
        parts.append(text(second, y, "seconds per GB" if described.by_octets() else "seconds per 10,000", 11, colour="#57606a"))
        y += 8
        for middle, line in mine.items():
            parts.append(text(LABEL - 8, y + BAR - 2, MIDDLES[middle], 11, "end"))
            parts += reached(line, workload, middle, most, LABEL, y)
            parts += used(line, most_used, second, y)
            y += ROW
    y += 6
    for line in textwrap.wrap(conditions, 150):
        y += 14
        parts.append(text(10, y, line, 10, colour="#57606a"))
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {y + 14}" width="{width}" font-family="sans-serif">'
    return "\n".join([head, f'<rect width="{width}" height="{y + 14}" fill="#ffffff"/>', *parts, "</svg>", ""])

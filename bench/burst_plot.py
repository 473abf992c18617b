#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Draws what burst.py wrote: requests above, replicas below; the burst on the left, the whole on the right.

Usage: burst_plot.py FILE.csv FILE.svg
"""

import csv
import math
import sys

WIDTH, HEIGHT, GAP, LEFT, TOP, BOTTOM = 960, 500, 56, 52, 62, 44
ROWS = (  # title, share of the height, (field, label, colour)
    ("requests", 0.6, (("offered", "offered: sent and not answered", "#888888"), ("ongoing", "ongoing: at a replica", "#1f6fb4"))),
    ("replicas", 0.4, (("target", "wanted", "#888888"), ("running", "running", "#c2571a"))),
)  # fmt: skip
TICKS = 6  # about so many on an axis


def nice(span):
    """A round step, so that about TICKS of them make the span."""
    raw = span / TICKS
    power = 10 ** math.floor(math.log10(raw))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= raw)


class Panel:
    def __init__(self, x, y, width, height, low, high, top):
        self.x, self.y, self.width, self.height = x, y, width, height
        self.low, self.high, self.top = low, high, top

    def at(self, seconds, value):
        across = (min(max(seconds, self.low), self.high) - self.low) / (self.high - self.low)
        return self.x + across * self.width, self.y + self.height * (1 - value / self.top)

    def line(self, rows, field, colour):
        points, before = [], None
        for row in rows:
            if row["seconds"] > self.high:
                break
            if before is not None:
                points.append(self.at(row["seconds"], before))
            before = row[field]
            points.append(self.at(row["seconds"], before))
        if before is not None:
            points.append(self.at(min(self.high, rows[-1]["seconds"]), before))
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"/>'

    def frame(self, unit_s, unit, with_x):
        out = [f'<rect x="{self.x}" y="{self.y}" width="{self.width}" height="{self.height}" fill="none" stroke="#bbb"/>']
        step = max(1, nice(self.top))
        for k in range(int(self.top / step) + 1):
            x, y = self.at(self.low, k * step)
            out.append(f'<path d="M{x:.1f} {y:.1f}h{self.width}" stroke="#eee"/>')
            out.append(f'<text x="{x - 6:.1f}" y="{y + 4:.1f}" text-anchor="end">{k * step:g}</text>')
        step = nice((self.high - self.low) / unit_s)
        for k in range(int(self.high / unit_s / step) + 1):
            x, _ = self.at(k * step * unit_s, 0)
            y = self.y + self.height
            out.append(f'<path d="M{x:.1f} {y:.1f}v4" stroke="#888"/>')
            if with_x:
                out.append(f'<text x="{x:.1f}" y="{y + 17:.1f}" text-anchor="middle">{k * step:g}</text>')
        if with_x:
            x, y = self.x + self.width / 2, self.y + self.height + 34
            out.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="middle">{unit} after the burst</text>')
        return "\n".join(out)


def draw(rows):
    last = max(r["seconds"] for r in rows if r["offered"] > 0)
    columns = ((rows[0]["seconds"], math.ceil(last / 10) * 10 + 10, 1, "seconds"), (rows[0]["seconds"], rows[-1]["seconds"], 60, "minutes"))
    width = (WIDTH - LEFT - GAP - 16) / 2
    room = HEIGHT - TOP - BOTTOM - GAP / 2
    out, y = [], TOP
    for n, (title, share, fields) in enumerate(ROWS):
        height = room * share
        top = max(r[f] for r in rows for f, _, _ in fields) * 1.05
        for c, (low, high, unit_s, unit) in enumerate(columns):
            panel = Panel(LEFT + c * (width + GAP), y, width, height, low, high, top)
            out.append(panel.frame(unit_s, unit, n == len(ROWS) - 1))
            out += [panel.line(rows, field, colour) for field, _, colour in fields]
        for k, (_, label, colour) in enumerate(fields):
            x, at = LEFT + k * 240 + n * 480, TOP - 26
            out.append(f'<path d="M{x} {at - 4}h22" stroke="{colour}" stroke-width="3"/>')
            out.append(f'<text x="{x + 28}" y="{at}">{label}</text>')
        out.append(f'<text x="{LEFT}" y="{y - 6}" font-weight="bold">{title}</text>')
        y += height + GAP / 2
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12" '
        f'fill="#333">\n<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>\n' + "\n".join(out) + "\n</svg>\n"
    )


def main():
    with open(sys.argv[1], encoding="utf-8") as f:
        rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(f)]
    with open(sys.argv[2], "w", encoding="utf-8") as f:
        f.write(draw(rows))


if __name__ == "__main__":
    main()

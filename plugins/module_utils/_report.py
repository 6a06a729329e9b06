# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A report of the cluster as one HTML page, which needs nothing beside itself: no script, no font, no picture from elsewhere.

Private to the collection. Every text that came from a host, a client or a repository's name is escaped; what is not known is said to be
unknown, and never left out in silence.
"""

from __future__ import annotations

import datetime
import html
import math
import time
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

from . import _certificates

#: Days that a certificate should still have.
DAYS_LEFT = 21
#: The most rows of a table of findings, or of repositories.
ROWS = 50

#: Colours of series that are told apart without colours too, by their dashes.
_STROKES = (
    ("#0b5394", ""), ("#b45309", "6 3"), ("#166534", "2 3"), ("#7e22ce", "9 3 2 3"), ("#9f1239", "12 4"), ("#475569", "1 2"),
)  # fmt: skip
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 560, 190, 64, 24, 10

_STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 76rem; margin: 0 auto; padding: 1rem 1.5rem 4rem; }
h1 { font-size: 1.7rem; margin: .5rem 0 0; } h2 { font-size: 1.3rem; margin: 2.2rem 0 .6rem; border-bottom: 2px solid #1a1a1a; }
h3 { font-size: 1rem; margin: 0 0 .2rem; } p { margin: .3rem 0; } .note { color: #444; font-size: .9rem; }
nav ul { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; }
a { color: #0b5394; } a:focus { outline: 3px solid #b45309; outline-offset: 2px; }
.wide { overflow-x: auto; } .wide:focus { outline: 3px solid #b45309; }
table { border-collapse: collapse; width: 100%; } caption { text-align: left; font-weight: 600; padding: .4rem 0; }
th, td { text-align: left; vertical-align: top; padding: .35rem .7rem .35rem 0; border-bottom: 1px solid #bbb; }
td { overflow-wrap: anywhere; min-width: 5rem; } td:first-child { min-width: 9rem; }
td.number, th.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.good { color: #166534; font-weight: 600; } .bad { color: #9f1239; font-weight: 600; } .unknown { color: #444; font-weight: 600; }
ul.verdict { padding-left: 1.2rem; } .graphs { display: grid; grid-template-columns: repeat(auto-fit, minmax(24rem, 1fr)); gap: 1.2rem 2rem; }
figure { margin: 0; break-inside: avoid; } svg { width: 100%; height: auto; display: block; }
figcaption { font-size: .9rem; } .key { list-style: none; margin: .2rem 0 0; padding: 0; font-size: .85rem; }
.key svg { width: 30px; height: 8px; display: inline-block; vertical-align: middle; margin-right: .4rem; }
@media (max-width: 40rem) { body { padding: .5rem .8rem; } .graphs { grid-template-columns: 1fr; } }
@media print {
  body { max-width: none; padding: 0; font-size: 10pt; } nav { display: none; } a { color: inherit; text-decoration: none; }
  td, td:first-child { min-width: 0; } h2 { break-after: avoid; } tr { break-inside: avoid; }
  .wide { overflow: visible; } .graphs { grid-template-columns: 1fr 1fr; }
}
"""


def escape(value: Any) -> str:
    """Return a text that is only a text in HTML; control characters and those that turn the direction of writing are shown as signs."""
    text = "".join(character if character.isprintable() else "\ufffd" for character in str(value))
    return html.escape(text, quote=True)


def bytes_text(value: Any) -> str:
    """Return a number of bytes for people."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
        return "unknown"
    number = float(value)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(number) < 1024 or unit == "TiB":
            return "%.0f %s" % (number, unit) if unit == "B" else "%.1f %s" % (number, unit)
        number /= 1024
    return ""


def duration_text(seconds: float) -> str:
    """Return a duration for people."""
    sign, seconds = ("-", -seconds) if seconds < 0 else ("", seconds)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return "%s%.3g %s" % (sign, seconds / size, unit)
    return "%s%.3g s" % (sign, seconds) if seconds >= 1 else "%s%.3g ms" % (sign, seconds * 1000)


def value_text(value: float, unit: str) -> str:
    """Return a value of a graph for people; ``unit`` is Grafana's name of it."""
    if unit == "percentunit":
        return "%.3g %%" % (value * 100)
    if unit == "bytes":
        return bytes_text(value)
    if unit == "Bps":
        return bytes_text(value) + "/s"
    if unit == "s":
        return duration_text(value)
    return "%.3g%s" % (value, "/s" if unit == "ops" else "")


# -- parts of a page -------------------------------------------------------------------------------------------------------------------


def _verdict(good: Optional[bool], text: str) -> str:
    kind = "unknown" if good is None else "good" if good else "bad"
    return '<span class="%s">%s</span>' % (kind, escape(text))


def _table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    """Return a table; cells are HTML already."""
    kinds = [' class="number"' if place in numbers else "" for place in range(len(heads))]
    head = "".join('<th scope="col"%s>%s</th>' % (kind, escape(name)) for kind, name in zip(kinds, heads))
    body = "".join("<tr>" + "".join("<td%s>%s</td>" % (kind, cell) for kind, cell in zip(kinds, row)) + "</tr>\n" for row in rows)
    if not body:
        body = '<tr><td colspan="%d">none</td></tr>\n' % len(heads)
    # A table that is too wide can be moved with the keys.
    return (
        '<div class="wide" tabindex="0" role="region" aria-label="%s"><table><caption>%s</caption><thead><tr>%s</tr></thead>'
        "<tbody>\n%s</tbody></table></div>\n" % (escape(caption), escape(caption), head, body)
    )


def _section(name: str, title: str, content: str) -> str:
    return '<section aria-labelledby="%s"><h2 id="%s">%s</h2>\n%s</section>\n' % (name, name, escape(title), content)


def _ticks(low: float, high: float, unit: str) -> List[float]:
    rough = (high - low) / 4
    base = 1.0
    if unit in ("bytes", "Bps"):
        # Round numbers of the unit that they are written in.
        base = 1024.0 ** max(math.floor(math.log(rough, 1024)), 0)
    size = base * 10.0 ** math.floor(math.log10(rough / base))
    step = next((size * factor for factor in (1, 2, 5) if size * factor >= rough), size * 10)
    first = math.ceil(low / step)
    return [step * (first + place) for place in range(12) if step * (first + place) <= high * 1.0000001]


def graph(title: str, unit: str, series: Sequence[Tuple[str, Sequence[Tuple[float, float]]]], begin: float, end: float) -> str:
    """Return a graph of series, each a name and its points (time, value), as a figure."""
    known = [(name, [(when, value) for when, value in points if math.isfinite(value)]) for name, points in series]
    known = [(name, points) for name, points in known if points][: len(_STROKES)]
    if not known:
        return "<figure><h3>%s</h3><figcaption>%s</figcaption></figure>\n" % (escape(title), _verdict(None, "no samples"))
    values = [value for _name, points in known for _when, value in points]
    low, high = min(0.0, *values), max(0.0, *values)
    if high == low:
        high = low + 1.0
    span = max(end - begin, 1.0)

    def x(when: float) -> float:
        return _LEFT + (when - begin) / span * (_WIDTH - _LEFT - 6)

    def y(value: float) -> float:
        return _TOP + (high - value) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    parts = []
    for tick in _ticks(low, high, unit):
        parts.append('<line x1="%d" x2="%d" y1="%.1f" y2="%.1f" stroke="#ccc"/>' % (_LEFT, _WIDTH, y(tick), y(tick)))
        parts.append('<text x="%d" y="%.1f" text-anchor="end">%s</text>' % (_LEFT - 6, y(tick) + 4, escape(value_text(tick, unit))))
    for place in range(5):
        when = begin + span * place / 4
        anchor = ("start", "middle", "middle", "middle", "end")[place]
        text = time.strftime("%d. %H:%M" if span > 86400 else "%H:%M", time.gmtime(when))
        parts.append('<text x="%.1f" y="%d" text-anchor="%s">%s</text>' % (x(when), _HEIGHT - 6, anchor, text))
    keys = []
    for (name, points), (colour, dash) in zip(known, _STROKES):
        stroke = 'fill="none" stroke="%s" stroke-width="2"%s' % (colour, ' stroke-dasharray="%s"' % dash if dash else "")
        step = span
        if len(points) > 1:
            step = min(later[0] - earlier[0] for earlier, later in zip(points, points[1:]))
        path, last = [], -math.inf
        for when, value in points:
            # Where samples are missing there is a gap, not a line.
            path.append("%s%.1f %.1f" % ("L" if when - last <= 1.5 * step else "M", x(when), y(value)))
            last = when
        parts.append('<path d="%s" %s/>' % ("".join(path) + ("h1" if len(points) == 1 else ""), stroke))
        now = value_text(points[-1][1], unit)
        most = value_text(max(value for _when, value in points), unit)
        keys.append(
            '<li><svg viewBox="0 0 30 8" aria-hidden="true"><path d="M0 4H30" %s/></svg>%s: %s now, %s at most</li>'
            % (stroke, escape(name), escape(now), escape(most))
        )
    more = len(series) - len(known)
    return (
        '<figure><h3>%s</h3><svg viewBox="0 0 %d %d" role="img" aria-label="%s" font-size="11" fill="#1a1a1a">%s</svg>'
        '<ul class="key">%s</ul>%s</figure>\n'
        % (
            escape(title), _WIDTH, _HEIGHT, escape("%s; the values are below" % title), "".join(parts), "".join(keys),
            '<p class="note">%d more series are not shown</p>' % more if more > 0 else "",
        )
    )  # fmt: skip


# -- what is reported ------------------------------------------------------------------------------------------------------------------


def certificates_of(hosts: Iterable[Mapping[str, Any]]) -> List[Dict[str, Any]]:
    """Return what the certificates on the hosts say; of each file that of its certificate which ends first."""
    now = datetime.datetime.now(datetime.timezone.utc)
    found = []
    for host in hosts:
        for path, content in sorted((host.get("look") or {}).get("certificates", {}).items()):
            entry: Dict[str, Any] = {"host": host["name"], "path": path, "days_left": None}
            try:
                chain = _certificates.load_certificates(content.encode("utf-8"))
                entry.update(_certificates.describe_certificate(min(chain, key=_certificates.not_after), now))
            except ValueError:
                pass
            found.append(entry)
    return found


def last_collection(hosts: Iterable[Mapping[str, Any]]) -> Optional[Dict[str, Any]]:
    """Return the newest report of a garbage collection, and whose it is."""
    reports = [{**host["look"]["gc"], "host": host["name"]} for host in hosts if (host.get("look") or {}).get("gc")]
    return max(reports, key=lambda report: report["time"], default=None)


def _problems(data: Mapping[str, Any]) -> List[str]:
    """Return one sentence for each thing that somebody should look at."""
    found = []
    for host in data["hosts"]:
        name, look = host["name"], host.get("look")
        if not look:
            found.append("%s was not reached: nothing is known of it." % name)
            continue
        for service in look.get("services", []):
            if service["state"] not in ("active", "activating") and not service.get("oneshot"):
                found.append("%s: %s is %s." % (name, service["name"], service["state"]))
            elif service["state"] == "failed":
                found.append("%s: %s failed." % (name, service["name"]))
        health = look.get("health")
        if health is not None and not health.get("healthy"):
            found.append("%s is not healthy: %s." % (name, health.get("cause") or "it gives no cause"))
        for disk in look.get("disks", []):
            if disk["size"] and 1 - disk["available"] / disk["size"] > 0.85:
                found.append("%s: %s is %.0f %% full." % (name, disk["path"], 100 - 100 * disk["available"] / disk["size"]))
    for certificate in data["certificates"]:
        if certificate.get("days_left") is None:
            found.append("%s: the certificate %s cannot be read." % (certificate["host"], certificate["path"]))
        elif certificate["days_left"] < DAYS_LEFT:
            found.append(
                "%s: the certificate %s is good for %d more days." % (certificate["host"], certificate["path"], certificate["days_left"])
            )
    for alert in (data.get("trends") or {}).get("alerts", []):
        found.append("Alert %s: %s." % (alert["name"], alert["summary"].rstrip(".")))
    count = len(_findings(data))
    if count:
        found.append("The storage has %d finding%s, see below." % (count, "" if count == 1 else "s"))
    return found


def _findings(data: Mapping[str, Any]) -> List[Mapping[str, Any]]:
    """Return the findings of the last garbage collection and of the look at the storage, each once."""
    found = {}
    for finding in [*((data.get("storage") or {}).get("findings") or []), *((data.get("gc") or {}).get("findings") or [])]:
        found[tuple(str(finding.get(key, "")) for key in ("kind", "repository", "digest", "detail"))] = finding
    return list(found.values())


def _hosts(data: Mapping[str, Any]) -> str:
    rows = []
    for host in data["hosts"]:
        look = host.get("look")
        if not look:
            rows.append([escape(host["name"]), escape(", ".join(host["groups"])), _verdict(None, "not reached"), "", "", ""])
            continue
        health = look.get("health")
        bad = [
            service
            for service in look.get("services", [])
            if service["state"] == "failed" or (service["state"] not in ("active", "activating") and not service.get("oneshot"))
        ]
        good = not bad and (health is None or bool(health.get("healthy")))
        text = "good" if good else ", ".join("%s is %s" % (service["name"], service["state"]) for service in bad) or "not healthy"
        services = ", ".join(escape(service["name"]) for service in look.get("services", []) if service["state"] == "active") or "none"
        disks = "<br>".join(
            "%s: %s of %s free" % (escape(disk["path"]), bytes_text(disk["available"]), bytes_text(disk["size"]))
            for disk in look.get("disks", [])
        )
        memory = "%s of %s free" % (bytes_text(look.get("memory_available")), bytes_text(look.get("memory_total")))
        rows.append([escape(host["name"]), escape(", ".join(host["groups"])), _verdict(good, text), services, disks, memory])
    return _table("Hosts", ("host", "groups", "state", "services that run", "disks", "memory"), rows)


def _storage(data: Mapping[str, Any]) -> str:
    storage = data.get("storage")
    if not storage:
        return "<p>%s</p>\n" % _verdict(None, "No node could be asked what the storage holds.")
    total = storage["totals"]
    size, held = total.get("size") or {}, total.get("storage") or {}
    text = (
        "<p>%d projects with %d repositories, %d tags and %d manifests. Stored: %s; without deduplication it would be %s. "
        "Garbage that a collection can free: %s.</p>\n"
        % (
            total["project_count"], total["repository_count"], total["tag_count"], total["manifest_count"],
            escape(bytes_text(held.get("bytes", size.get("unique")))), escape(bytes_text(size.get("logical"))),
            escape(bytes_text(held.get("unreferenced_bytes"))),
        )
    )  # fmt: skip

    def rows(entries: Iterable[Mapping[str, Any]]) -> Iterable[List[str]]:
        for entry in sorted(entries, key=lambda one: -(one.get("size") or {}).get("unique", 0))[:ROWS]:
            sizes = entry.get("size") or {}
            numbers = [escape(bytes_text(sizes.get(name))) for name in ("unique", "shared", "saved")]
            yield [
                escape(entry["name"]),
                str(entry["tag_count"]),
                str(entry["manifest_count"]),
                *numbers,
                escape(entry.get("last_push") or "-"),
            ]

    heads = ("", "tags", "manifests", "only here", "shared with others", "saved by deduplication", "last push (UTC)")
    text += _table("By project", ("project", *heads[1:]), rows(storage["projects"]), range(1, 6))
    title = (
        "By repository"
        if len(storage["repositories"]) <= ROWS
        else "The %d largest of %d repositories" % (ROWS, len(storage["repositories"]))
    )
    return text + _table(title, ("repository", *heads[1:]), rows(storage["repositories"]), range(1, 6))


def _certificate_table(data: Mapping[str, Any]) -> str:
    rows = []
    for entry in sorted(data["certificates"], key=lambda one: (one.get("days_left") is not None, one.get("days_left") or 0)):
        days = entry.get("days_left")
        state = _verdict(None, "unreadable") if days is None else _verdict(days >= DAYS_LEFT, "%d days" % days)
        names = ", ".join(entry.get("subject_alt_names", []))
        rows.append([escape(entry["host"]), escape(entry["path"]), state, escape(entry.get("not_after", "")), escape(names)])
    return _table("Certificates on the hosts", ("host", "file", "good for", "until (UTC)", "names"), rows)


def _cleaning(data: Mapping[str, Any]) -> str:
    gc = data.get("gc")
    if not gc:
        text = "<p>%s</p>\n" % _verdict(None, "No report of a garbage collection was found.")
    else:
        text = "<p>The last garbage collection was at %s on %s. It freed %s and left %s for a later run.</p>\n" % (
            escape(gc["time"]), escape(gc["host"]), escape(bytes_text(gc.get("bytes_freed"))), escape(bytes_text(gc.get("bytes_pending"))),
        )  # fmt: skip
    findings = _findings(data)
    rows = [[escape(entry.get(key, "")) for key in ("kind", "repository", "digest", "detail")] for entry in findings[:ROWS]]
    title = "Findings" if len(findings) <= ROWS else "The first %d of %d findings" % (ROWS, len(findings))
    return text + _table(title, ("kind", "repository", "digest", "what"), rows)


def _trends(data: Mapping[str, Any]) -> str:
    trends = data.get("trends")
    if not trends:
        return "<p>%s</p>\n" % _verdict(None, "There is no Prometheus, or it did not answer: no trends.")
    graphs = []
    for panel in trends["panels"]:
        series = [(entry["name"], [(float(when), float(value)) for when, value in entry["points"]]) for entry in panel["series"]]
        graphs.append(graph(panel["title"], panel["unit"], series, float(trends["begin"]), float(trends["end"])))
    return '<p class="note">%s to %s, UTC.</p>\n<div class="graphs">%s</div>\n' % (
        escape(_moment(trends["begin"])), escape(_moment(trends["end"])), "".join(graphs),
    )  # fmt: skip


def _moment(seconds: Any) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(float(seconds)))


def render(data: Mapping[str, Any]) -> str:
    """Return the page of what was found: name, time, hosts, and perhaps storage and trends."""
    data = {**data, "certificates": certificates_of(data["hosts"]), "gc": last_collection(data["hosts"])}
    problems = _problems(data)
    if problems:
        summary = '<p>%s</p><ul class="verdict">%s</ul>\n' % (
            _verdict(False, "%d thing%s to look at:" % (len(problems), "" if len(problems) == 1 else "s")),
            "".join("<li>%s</li>" % escape(problem) for problem in problems),
        )
    else:
        summary = "<p>%s</p>\n" % _verdict(True, "Nothing to complain of.")
    sections = [
        ("summary", "Summary", summary),
        ("hosts", "Hosts", _hosts(data)),
        ("storage", "Storage", _storage(data)),
        ("trends", "Trends", _trends(data)),
        ("certificates", "Certificates", _certificate_table(data)),
        ("cleaning", "Cleaning and findings", _cleaning(data)),
    ]
    links = "".join('<li><a href="#%s">%s</a></li>' % (name, escape(title)) for name, title, _content in sections)
    title = "Registry %s" % data["name"]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        '<title>%s</title>\n<style>%s</style>\n</head>\n<body>\n<header><h1>%s</h1>\n<p class="note">As it was at %s UTC.</p></header>\n'
        '<nav aria-label="Sections"><ul>%s</ul></nav>\n<main>\n%s</main>\n</body>\n</html>\n'
        % (escape(title), _STYLE, escape(title), escape(_moment(data["time"])), links, "".join(_section(*one) for one in sections))
    )

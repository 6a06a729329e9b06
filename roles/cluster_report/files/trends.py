# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask Prometheus for the trends of the report, and which alerts fire. Prints JSON, null if it does not answer."""

import json
import math
import os
import re
import time
import urllib.error
import urllib.parse
import urllib.request

WISHES = json.loads(os.environ["WHARF_REPORT"])
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def ask(path, **parameters):
    """What Prometheus answers."""
    url = WISHES["url"].rstrip("/") + "/api/v1/" + path + "?" + urllib.parse.urlencode(parameters)
    with OPENER.open(url, timeout=30) as answer:
        return json.loads(answer.read().decode("utf-8"))["data"]


def named(legend, labels):
    """The text for a series."""
    return re.sub(r"\{\{(\w+)\}\}", lambda match: labels.get(match.group(1), ""), legend).strip() or "value"


def finite(points):
    """Points that are numbers: a ratio of nothing to nothing is none."""
    found = [(float(when), float(value)) for when, value in points]
    return [[when, value] for when, value in found if math.isfinite(value)]


def main():
    """All panels."""
    end = WISHES["until"] or time.time()
    begin = end - WISHES["seconds"]
    panels = []
    for panel in WISHES["panels"]:
        series = []
        for query in panel["queries"]:
            result = ask("query_range", query=query["query"], start=begin, end=end, step=WISHES["step"])["result"]
            for found in result:
                points = finite(found["values"])
                if points:
                    series.append({"name": named(query["legend"], found["metric"]), "points": points})
        panels.append({"title": panel["title"], "unit": panel["unit"], "series": series})
    alerts = [
        {"name": alert["labels"].get("alertname", ""), "summary": alert["annotations"].get("summary", "")}
        for alert in ask("alerts")["alerts"]
        if alert["state"] == "firing" and alert["labels"].get("cluster") == WISHES["cluster"]
    ]
    return {"begin": begin, "end": end, "panels": panels, "alerts": alerts}


try:
    print(json.dumps(main()))
except (OSError, ValueError, KeyError):
    print("null")

# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is worth looking at, once: the panels of the dashboards for Grafana, and the trends of the report. Private to the collection.

A query has ``$cluster``, ``$node`` and ``$project`` where Grafana puts what was chosen, and ``$__rate_interval`` for a window that holds
enough samples. Every metric is one of docs/metrics.md.
"""

from __future__ import annotations

import json
import re
from typing import Any, Dict, List, Mapping, NamedTuple, Tuple

DASHBOARDS = ("cluster", "node", "project")
#: What a dashboard lets choose, and where the choices come from.
_CHOICES = {
    "cluster": ("cluster", "label_values(up, cluster)"),
    "node": ("node", 'label_values(up{cluster="$cluster"}, node)'),
    "project": ("project", 'label_values(wharf_edge_requests_total{cluster="$cluster"}, project)'),
}
_CHOOSES = {"cluster": ("cluster",), "node": ("cluster", "node"), "project": ("cluster", "project")}
_TITLES = {"cluster": "Registry: cluster", "node": "Registry: node", "project": "Registry: project"}

_PULLED = 'operation="manifest_get",status=~"2.."'
_PUSHED = 'operation="manifest_put",status="201"'


class Panel(NamedTuple):
    """One graph. ``unit`` is Grafana's name of it; ``queries`` are the query and the text for each of its series."""

    title: str
    unit: str
    queries: Tuple[Tuple[str, str], ...]
    help: str = ""


def _rate(metric: str, labels: str, by: str = "") -> str:
    return "sum%s (rate(%s{%s}[$__rate_interval]))" % (" by (%s)" % by if by else "", metric, labels)


_C = 'cluster="$cluster"'
_N = 'cluster="$cluster",node="$node"'
_P = 'cluster="$cluster",project="$project"'

PANELS: Mapping[str, Tuple[Panel, ...]] = {
    "cluster": (
        Panel(
            "Pulls and pushes",
            "ops",
            (
                (_rate("wharf_edge_requests_total", _C + "," + _PULLED), "pulls"),
                (_rate("wharf_edge_requests_total", _C + "," + _PUSHED), "pushes"),
            ),
            "Manifests read and written with success.",
        ),
        Panel(
            "Bytes",
            "Bps",
            (
                (_rate("wharf_edge_bytes_sent_total", _C), "sent"),
                (_rate("wharf_edge_bytes_received_total", _C), "received"),
            ),
            "Through the edges. Layers that clients fetch from S3 themselves are not in it.",
        ),
        Panel(
            "Failed requests of clients",
            "percentunit",
            (
                ("%s / %s" % (_rate("wharf_client_read_errors_total", _C), _rate("wharf_client_reads_total", _C)), "reads"),
                ("%s / %s" % (_rate("wharf_client_write_errors_total", _C), _rate("wharf_client_writes_total", _C)), "writes"),
            ),
            "Answered with an error of the server, or timed out.",
        ),
        Panel(
            "Pulls that timed out",
            "ops",
            ((_rate("wharf_client_pull_timeouts_by_reason_total", _C, "reason"), "{{reason}}"),),
        ),
        Panel(
            "Time until a request is answered",
            "s",
            tuple(
                (
                    "histogram_quantile(%s, %s)"
                    % (quantile, _rate("wharf_edge_request_duration_seconds_bucket", _C + ',operation=~"manifest_.*"', "le")),
                    name,
                )
                for quantile, name in (("0.5", "half of them"), ("0.95", "95 %"), ("0.99", "99 %"))
            ),
            "Requests for manifests: those for layers take as long as the client does.",
        ),
        Panel(
            "Credentials",
            "ops",
            (
                (_rate("wharf_credentials_checked_total", _C), "checked"),
                (_rate("wharf_credentials_refused_total", _C), "refused"),
                (_rate("wharf_challenges_total", _C), "challenges"),
            ),
            "A challenge is no failure: every client begins with one.",
        ),
        Panel(
            "Storage in use",
            "percentunit",
            (
                (
                    "max by (storage) (1 - wharf_storage_available_bytes{%s} / wharf_storage_size_bytes{%s})" % (_C, _C),
                    "{{storage}}",
                ),
            ),
            "Of a file system or NFS; a bucket has no size.",
        ),
        Panel(
            "Garbage",
            "bytes",
            (
                ("max (wharf_gc_freed_bytes{%s})" % _C, "freed by the last run"),
                ("max (wharf_gc_pending_bytes{%s})" % _C, "left for a later run"),
            ),
        ),
        Panel(
            "Time since the last good cleaning",
            "s",
            (
                ("time() - max (wharf_gc_last_success_timestamp_seconds{%s})" % _C, "garbage collection"),
                ("time() - max (wharf_retention_last_success_timestamp_seconds{%s})" % _C, "retention"),
            ),
        ),
        Panel(
            "Nodes that a balancer serves with",
            "none",
            (("sum by (node) (wharf_balancer_node_serving{%s})" % _C, "{{node}}"),),
        ),
        Panel(
            "Answers from outside",
            "none",
            (('min by (job, node) (probe_success{%s,job=~"wharf_.+"})' % _C, "{{job}} {{node}}"),),
            "1: the answer was the right one.",
        ),
        Panel(
            "Certificates: time left",
            "s",
            (("min by (node, use) (wharf_certificate_not_after_timestamp_seconds{%s}) - time()" % _C, "{{node}} {{use}}"),),
        ),
        Panel(
            "Redis: memory in use",
            "bytes",
            (("redis_memory_used_bytes{%s}" % _C, "{{node}}"),),
        ),
        Panel(
            "Descriptors found in the cache",
            "percentunit",
            (
                (
                    "%s / %s" % (_rate("registry_storage_cache_hits_total", _C), _rate("registry_storage_cache_requests_total", _C)),
                    "distribution 3",
                ),
                (
                    "%s / %s"
                    % (
                        _rate("registry_storage_cache_total", _C + ',type="Hit"'),
                        _rate("registry_storage_cache_total", _C + ',type="Request"'),
                    ),
                    "distribution 2.8",
                ),
            ),
        ),
    ),
    "node": (
        Panel("Requests by status", "ops", ((_rate("wharf_edge_requests_total", _N, "status"), "{{status}}"),)),
        Panel("Requests by operation", "ops", ((_rate("wharf_edge_requests_total", _N, "operation"), "{{operation}}"),)),
        Panel(
            "Bytes",
            "Bps",
            (
                (_rate("wharf_edge_bytes_sent_total", _N), "sent"),
                (_rate("wharf_edge_bytes_received_total", _N), "received"),
            ),
        ),
        Panel(
            "Time until a request is answered",
            "s",
            (
                (
                    "histogram_quantile(0.95, %s)" % _rate("wharf_edge_request_duration_seconds_bucket", _N, "operation, le"),
                    "{{operation}}, 95 %",
                ),
            ),
        ),
        Panel("Requests under way in the registry", "none", (("sum (registry_http_in_flight_requests{%s})" % _N, "requests"),)),
        Panel(
            "Answers of the registry",
            "ops",
            ((_rate("registry_http_requests_total", _N, "code"), "{{code}}"),),
        ),
        Panel(
            "Time that the storage takes",
            "s",
            (
                (
                    "%s / %s"
                    % (
                        _rate("registry_storage_action_seconds_sum", _N, "action"),
                        _rate("registry_storage_action_seconds_count", _N, "action"),
                    ),
                    "{{action}}",
                ),
            ),
            "Mean of each action; the streaming of layers is not in it.",
        ),
        Panel("What the probe finds", "none", (("min by (check) (wharf_probe_healthy{%s})" % _N, "{{check}}"),), "1: good."),
        Panel(
            "Memory in use",
            "percentunit",
            (("1 - node_memory_MemAvailable_bytes{%s} / node_memory_MemTotal_bytes{%s}" % (_N, _N), "memory"),),
        ),
        Panel(
            "Disks in use",
            "percentunit",
            (
                (
                    'max by (mountpoint) (1 - node_filesystem_avail_bytes{%s,fstype!~"tmpfs|overlay|squashfs"}'
                    ' / node_filesystem_size_bytes{%s,fstype!~"tmpfs|overlay|squashfs"})' % (_N, _N),
                    "{{mountpoint}}",
                ),
            ),
        ),
        Panel(
            "Clock: distance to Prometheus",
            "s",
            (("node_time_seconds{%s} - timestamp(node_time_seconds{%s})" % (_N, _N), "seconds"),),
        ),
        Panel(
            "Certificates: time left",
            "s",
            (("min by (use) (wharf_certificate_not_after_timestamp_seconds{%s}) - time()" % _N, "{{use}}"),),
        ),
    ),
    "project": (
        Panel(
            "Pulls and pushes",
            "ops",
            (
                (_rate("wharf_edge_requests_total", _P + "," + _PULLED), "pulls"),
                (_rate("wharf_edge_requests_total", _P + "," + _PUSHED), "pushes"),
            ),
        ),
        Panel(
            "Bytes",
            "Bps",
            (
                (_rate("wharf_edge_bytes_sent_total", _P), "sent"),
                (_rate("wharf_edge_bytes_received_total", _P), "received"),
            ),
        ),
        Panel("Requests by status", "ops", ((_rate("wharf_edge_requests_total", _P, "status"), "{{status}}"),)),
        Panel("Requests by operation", "ops", ((_rate("wharf_edge_requests_total", _P, "operation"), "{{operation}}"),)),
        Panel(
            "Failed requests",
            "percentunit",
            (
                (
                    "%s / %s" % (_rate("wharf_edge_requests_total", _P + ',status=~"5.."'), _rate("wharf_edge_requests_total", _P)),
                    "errors of the server",
                ),
                (
                    "%s / %s" % (_rate("wharf_edge_requests_total", _P + ',status=~"4.."'), _rate("wharf_edge_requests_total", _P)),
                    "refused or not found",
                ),
            ),
            "Challenges, with which every client begins, are among the refused.",
        ),
    ),
}


def query_for(expression: str, values: Mapping[str, str], window: str) -> str:
    """Return a query with what was chosen in it, as Grafana makes it."""
    for name, value in values.items():
        expression = expression.replace("$" + name, re.sub(r'(["\\])', r"\\\1", value))
    return expression.replace("$__rate_interval", window)


def grafana(name: str) -> Dict[str, Any]:
    """Return a dashboard as Grafana imports it."""
    panels: List[Dict[str, Any]] = []
    for number, panel in enumerate(PANELS[name]):
        panels.append(
            {
                "id": number + 1,
                "type": "timeseries",
                "title": panel.title,
                "description": panel.help,
                "datasource": {"type": "prometheus", "uid": "${datasource}"},
                "gridPos": {"h": 8, "w": 12, "x": 12 * (number % 2), "y": 8 * (number // 2)},
                "fieldConfig": {
                    "defaults": {"unit": panel.unit, "custom": {"fillOpacity": 10, "lineWidth": 1, "showPoints": "never"}},
                    "overrides": [],
                },
                "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}},
                "targets": [
                    {
                        "refId": chr(ord("A") + place),
                        "datasource": {"type": "prometheus", "uid": "${datasource}"},
                        "expr": expression,
                        "legendFormat": legend,
                    }
                    for place, (expression, legend) in enumerate(panel.queries)
                ],
            }
        )
    variables: List[Dict[str, Any]] = [{"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}]
    for choice in _CHOOSES[name]:
        label, query = _CHOICES[choice]
        variables.append(
            {
                "name": choice,
                "label": label,
                "type": "query",
                "datasource": {"type": "prometheus", "uid": "${datasource}"},
                "definition": query,
                "query": {"query": query, "refId": choice},
                "refresh": 2,
                "sort": 1,
            }
        )
    return {
        "uid": "wharf-" + name,
        "title": _TITLES[name],
        "tags": ["registry", "wharf"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "time": {"from": "now-24h", "to": "now"},
        "refresh": "1m",
        "templating": {"list": variables},
        "panels": panels,
    }


def as_file(name: str) -> str:
    """Return the file of a dashboard."""
    return json.dumps(grafana(name), indent=1) + "\n"

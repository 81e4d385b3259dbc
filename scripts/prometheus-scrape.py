#!/usr/bin/env python3
"""Lets Prometheus scrape a Holdline with two workers, one of which dies; by scripts/prometheus-check.

Fails when a rule or a query of the Grafana dashboard is one that Prometheus can't run, when one names a metric that
docs/metrics.md does not have, or when the loss of a worker does not show.
"""

import json
import os
import re
import socket
import sys
import time
import urllib.parse
import urllib.request

from processes import WAIT_S, Stage, verdict

HOLDLINE = os.environ["HOLDLINE_BIN"]
RULES = os.path.abspath("deploy/prometheus/holdline.rules.yml")


def documented():
    with open("docs/metrics.md", encoding="utf-8") as file:
        return set(re.findall(r"^\| `((?:holdline|process)_\w+)`", file.read(), re.M))


def dashboard_queries():
    with open("deploy/grafana/holdline.json", encoding="utf-8") as file:
        panels = json.load(file)["panels"]
    queries = [target["expr"] for panel in panels for target in panel.get("targets", [])]
    return [query.replace("$instance", ".*").replace("$__rate_interval", "1m") for query in queries]


def check_names(queries):
    known = documented()
    for query in queries:
        for name in re.findall(r"\b(?:holdline|process)_[a-z_]+\b", query):
            base = re.sub(r"_(bucket|sum|count)$", "", name)
            assert name in known or base in known, f"{name} is not in docs/metrics.md: {query}"


class Prometheus:
    def __init__(self, stage, admin):
        config = stage.path("prometheus.yml")
        with open(config, "w", encoding="utf-8") as file:
            json.dump({"global": {"scrape_interval": "1s", "evaluation_interval": "1s"}, "rule_files": [RULES],
                       "scrape_configs": [{"job_name": "holdline", "static_configs": [{"targets": [admin]}]}]}, file)
        # Prometheus does not say which port it was given, so it is given one that was free a moment ago.
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        process = stage.start("prometheus", "prometheus", f"--config.file={config}",
                              f"--storage.tsdb.path={stage.path('data')}", f"--web.listen-address={self.address}")
        process.wait_for("(Server is ready to receive web requests)")

    def ask(self, path, **parameters):
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=WAIT_S) as answer:
            return json.load(answer)["data"]

    def until(self, query, wanted):
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            found = [float(sample["value"][1]) for sample in self.ask("query", query=query)["result"]]
            if wanted(found):
                print(f"prometheus: {query}: {found}")
                return
            time.sleep(0.2)
        raise AssertionError(f"not in {WAIT_S} s: {query}: {found}")


def look(prometheus, victim):
    queries = dashboard_queries()
    rules = [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]
    check_names(queries + [rule["query"] for rule in rules])
    prometheus.until('up{job="holdline"}', lambda found: found == [1.0])
    prometheus.until("sum(holdline_backend_up)", lambda found: found == [2.0])
    for query in queries:
        prometheus.ask("query", query=query)
    victim.child.kill()
    prometheus.until("sum(holdline_backend_up)", lambda found: found == [1.0])
    prometheus.until('ALERTS{alertname="HoldlineBackendDown"}', lambda found: found == [1.0])
    rules = [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]
    broken = [rule["name"] for rule in rules if rule["health"] != "ok"]
    assert not broken, f"rules that fail: {broken}"
    print(f"prometheus: {len(rules)} rules and {len(queries)} queries of the dashboard run")


def check(work):
    with Stage(work) as stage:
        _, admin, workers = stage.holdline(HOLDLINE)
        look(Prometheus(stage, admin), workers[0])


if __name__ == "__main__":
    sys.exit(verdict("prometheus", lambda: check(*sys.argv[1:])))

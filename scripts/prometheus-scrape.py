#!/usr/bin/env python3
"""Lets Prometheus scrape a Holdline with two workers, one of which dies under a client; by scripts/prometheus-check.

Fails when a rule or a query of the Grafana dashboard is one that Prometheus can't run, when one names a metric that
docs/metrics.md does not have, when the loss of a worker does not show, or when a query of the dashboard (its variables
and annotations too) has no data: zero is data, a series that is not there is none.
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

HOLDLINE = os.path.abspath(os.environ["HOLDLINE_BIN"])
RULES = os.path.abspath("deploy/prometheus/holdline.rules.yml")


def documented():
    with open("docs/metrics.md", encoding="utf-8") as file:
        return set(re.findall(r"^\| `((?:holdline|process)_\w+)`", file.read(), re.M))


# What there is to see on each panel: a memory limit, workers that tell their memory, and one that Holdline runs.
CONFIG = f"""
[memory]
process_max = "1GiB"
[[pools]]
name = "default"
health = {{ kind = "http", path = "/health", interval = "1s" }}
[[pools]]
name = "own"
health = {{ kind = "http", path = "/health", interval = "1s" }}
[[routes]]
name = "ws"
path = "/ws/{{*rest}}"
pool = "default"
[[routes]]
name = "http"
path = "/{{*rest}}"
pool = "default"
[[workers]]
name = "own"
pool = "own"
command = ["{HOLDLINE}", "worker", "--listen", "127.0.0.1:{{port}}"]
"""


def dashboard_queries():
    with open("deploy/grafana/holdline.json", encoding="utf-8") as file:
        board = json.load(file)
    queries = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    queries += [note["expr"] for note in board["annotations"]["list"]]
    queries += [variable["query"] for variable in board["templating"]["list"] if variable["type"] == "query"]
    return [as_prometheus_asks(query) for query in queries]


def as_prometheus_asks(query):
    """A query of Grafana with its variables filled in; the values of a label as a count of them."""
    query = re.sub(r"^label_values\((.*), (\w+)\)$", r"count by (\2) (\1)", query)
    query = re.sub(r"\$(instance|pool|route)\b", ".*", query)
    return query.replace("$__rate_interval", "1m")


def without_description(board):
    """Panels that do not say what they show."""
    return [panel["title"] for panel in board["panels"] if panel["type"] != "row" and not panel["description"]]


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

    def values(self, query):
        return [float(sample["value"][1]) for sample in self.ask("query", query=query)["result"]]

    def until(self, query, wanted):
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            found = self.values(query)
            if wanted(found):
                print(f"prometheus: {query}: {found}")
                return
            time.sleep(0.2)
        raise AssertionError(f"not in {WAIT_S} s: {query}: {found}")

    def until_all_have_data(self, queries):
        deadline = time.monotonic() + WAIT_S
        empty = list(queries)
        while empty and time.monotonic() < deadline:
            # A quantile of nothing is no number.
            empty = [query for query in empty if not any(value == value for value in self.values(query))]
            time.sleep(0.2)
        assert not empty, "queries of the dashboard without data:\n  " + "\n  ".join(empty)


class Client:
    """A WebSocket client that only listens: it opens a conversation, and keeps it or breaks it off."""

    def __init__(self, public, path):
        host, port = public.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=WAIT_S)
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: {public}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode())
        answer = self.socket.recv(64)
        assert answer.startswith(b"HTTP/1.1 101"), answer

    def close(self):
        self.socket.close()


def look(prometheus, public, workers):
    queries = dashboard_queries()
    rules = [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]
    check_names(queries + [rule["query"] for rule in rules])
    prometheus.until('up{job="holdline"}', lambda found: found == [1.0])
    prometheus.until('sum(holdline_backend_up{pool="default"})', lambda found: found == [2.0])
    prometheus.until('holdline_pool_backends{pool="own",state="eligible"}', lambda found: found == [1.0])
    clients = [Client(public, f"/ws/{number}/echo") for number in range(4)]
    with urllib.request.urlopen(f"http://{public}/health", timeout=WAIT_S) as answer:
        answer.read()
    clients.pop().close()
    prometheus.until("sum(holdline_pipes)", lambda found: found == [3.0])
    workers[0].child.kill()
    prometheus.until('sum(holdline_backend_up{pool="default"})', lambda found: found == [1.0])
    prometheus.until('ALERTS{alertname="HoldlineBackendDown"}', lambda found: found == [1.0])
    prometheus.until('sum(holdline_reattach_total{result="attached"})', lambda found: found[0] > 0)
    prometheus.until_all_have_data(queries)
    workers[1].child.kill()
    prometheus.until('holdline_pool_backends{pool="default",state="eligible"}', lambda found: found == [0.0])
    prometheus.until('ALERTS{alertname="HoldlinePoolEmpty",pool="default"}', lambda found: found == [1.0])
    rules = [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]
    broken = [rule["name"] for rule in rules if rule["health"] != "ok"]
    assert not broken, f"rules that fail: {broken}"
    for client in clients:
        client.close()
    print(f"prometheus: {len(rules)} rules run, and {len(queries)} queries of the dashboard have data")


def check(work):
    with open("deploy/grafana/holdline.json", encoding="utf-8") as file:
        silent = without_description(json.load(file))
    assert not silent, f"panels without a description: {silent}"
    config = os.path.join(work, "proxy.toml")
    with open(config, "w", encoding="utf-8") as file:
        file.write(CONFIG)
    with Stage(work) as stage:
        public, admin, workers = stage.holdline(HOLDLINE, {"HOLDLINE_CONFIG": config})
        look(Prometheus(stage, admin), public, workers)


if __name__ == "__main__":
    sys.exit(verdict("prometheus", lambda: check(*sys.argv[1:])))

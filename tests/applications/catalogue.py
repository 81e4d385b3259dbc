"""The applications: what runs as a worker, what its user runs, and what their protocol allows at an interruption."""

import dataclasses

from rig import CACHE, CHROMEDRIVER, HERE, MOSQUITTO, PYTHON

Y_WEBSOCKET = str(CACHE / "node/node_modules/y-websocket/bin/server.cjs")


@dataclasses.dataclass(frozen=True)
class Application:
    """`worker` is told {port} and {directory}, `user` is told {port}. The user of a profiled application notices nothing."""

    name: str
    worker: list
    user: list
    # The profile that `conversation = "auto"` has to find; empty where there is none.
    profile: str = ""
    # What its operator adds to the route, as its documents say.
    route: str = ""
    # Messages that the protocol allows to be lost, or to come twice, at one interruption.
    lost_max: int = 0
    doubled_max: int = 0
    # What is said between the loss and the new subscription is heard by no one, as it is when a client connects again by itself.
    misses: bool = False
    # A new worker takes its time before it answers anything, with or without Holdline.
    slow_start: bool = False
    # What one looks at is a state: what was overtaken by something newer is not lost.
    state: bool = False
    # In the short set.
    short: bool = False
    # Brings a browser or the like: one of these at a time.
    heavy: bool = False


def python(file, *arguments):
    return [PYTHON, str(HERE / file), *arguments]


def node(file, *arguments):
    return ["node", str(HERE / file), *arguments]


def both(file, *arguments):
    """A Node file with both sides."""
    return {"worker": node(file, "worker", "{port}", *arguments), "user": node(file, "user", "{port}", *arguments)}


def echo(kind):
    return {"worker": python("echo.py", kind, "{port}"), "user": python("echo.py", "user", "{port}")}


def mqtt(version):
    worker = python("mqtt.py", "worker", MOSQUITTO, "{port}", "{directory}")
    return {"worker": worker, "user": python("mqtt.py", "user", "{port}", version)}


JUPYTER = [
    "jupyter-server", "--allow-root", "--no-browser", "--ServerApp.ip=127.0.0.1", "--ServerApp.port={port}",
    "--ServerApp.port_retries=0", "--IdentityProvider.token=", "--ServerApp.disable_check_xsrf=True",
    "--ServerApp.root_dir={directory}", "--ServerApp.allow_remote_access=True",
]
PYLSP = ["pylsp", "--ws", "--host", "127.0.0.1", "--port", "{port}"]
CHROMIUM = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-port={port}",
            "--user-data-dir={directory}/profile", "about:blank"]
APPIUM = ["node", str(CACHE / "node/node_modules/appium/index.js"), "server", "--address", "127.0.0.1", "--port", "{port}",
          "--log-level", "error"]
STREAMLIT = ["streamlit", "run", str(HERE / "panel.py"), "--server.address", "127.0.0.1", "--server.port", "{port}",
             "--server.headless", "true", "--browser.gatherUsageStats", "false", "--server.fileWatcherType", "none"]

APPLICATIONS = [
    Application("FastAPI", **echo("fastapi"), lost_max=2, doubled_max=2, short=True),
    Application("Tornado", **echo("tornado"), doubled_max=2),
    Application("Channels", **echo("channels"), lost_max=2, doubled_max=2),
    # A mutation in flight is answered with an error: it may have been done and not be heard of.
    Application("graphql-ws", misses=True, **both("graphql.mjs"), profile="graphql-transport-ws", lost_max=2, short=True),
    Application("Socket.IO", **both("socketio.mjs", "plain"), profile="socket.io", doubled_max=2, short=True),
    # It is heard over its room alone, which only the worker knows that was told to join it.
    Application("Socket.IO, rooms", **both("socketio.mjs", "rooms"), profile="socket.io", doubled_max=2, short=True,
                route='prologue.keep = [{ json = "/0", equals = "join", key = "/1" }]'),
    Application("Socket.IO, polling first", **both("socketio.mjs", "polling")),
    Application("python-socketio", profile="socket.io", lost_max=2, doubled_max=2,
                worker=python("socketio_python.py", "worker", "{port}"), user=python("socketio_python.py", "user", "{port}")),
    Application("SockJS", **both("sockjs.mjs"), profile="sockjs", doubled_max=2),
    Application("Mosquitto, paho, MQTT 3.1.1", **mqtt("4"), profile="mqtt", doubled_max=3, short=True),
    Application("Mosquitto, paho, MQTT 5", **mqtt("5"), profile="mqtt", doubled_max=3),
    Application("nats-server, nats.ws", profile="nats", lost_max=2, doubled_max=2, short=True,
                worker=python("nats_worker.py", "{port}", "{directory}"), user=node("nats.mjs", "user", "{port}")),
    Application("STOMP", misses=True, **both("stomp.mjs"), profile="stomp", lost_max=2, doubled_max=2, short=True),
    Application("tRPC", misses=True, **both("trpc.mjs"), profile="trpc", lost_max=2, doubled_max=2),
    Application("ganache, ethers", **both("ganache.mjs"), profile="eth-jsonrpc", lost_max=2, doubled_max=2),
    Application("y-websocket", state=True,
                worker=["sh", "-c", f"HOST=127.0.0.1 PORT={{port}} exec node {Y_WEBSOCKET}"],
                user=node("shared_text.mjs", "user", "{port}", "y-websocket")),
    Application("Hocuspocus", **both("shared_text.mjs", "hocuspocus"), profile="hocuspocus", state=True),
    Application("pylsp", profile="lsp", doubled_max=1, slow_start=True, worker=PYLSP, user=python("lsp.py", "{port}")),
    # The first conversation of a route whose clients compress cannot be read on; the next ones are not compressed.
    Application("pylsp, compressed", doubled_max=1, slow_start=True, worker=PYLSP,
                user=python("lsp.py", "{port}", "compressed")),
    Application("OCPP 1.6", profile="ocpp1.6", doubled_max=2,
                worker=python("charging.py", "worker", "{port}"), user=python("charging.py", "user", "{port}")),
    Application("terminado", worker=python("notebooks.py", "terminal", "{port}"),
                user=python("notebooks.py", "shell", "{port}")),
    Application("Jupyter server", heavy=True, worker=JUPYTER, user=python("notebooks.py", "kernel", "{port}")),
    Application("websockify", worker=python("stream.py", "worker", "{port}"), short=True,
                user=python("stream.py", "user", "{port}")),
    Application("DevTools, puppeteer-core", heavy=True, worker=CHROMIUM,
                user=node("browsers.mjs", "devtools", "{port}")),
    Application("chromedriver, BiDi", heavy=True, worker=[CHROMEDRIVER, "--port={port}"],
                user=node("browsers.mjs", "bidi", "{port}")),
    Application("Playwright", heavy=True, worker=node("browsers.mjs", "playwright-server", "{port}"),
                user=node("browsers.mjs", "playwright", "{port}")),
    Application("Appium, fake driver", heavy=True, worker=APPIUM,
                user=node("browsers.mjs", "appium", "{port}", "{directory}")),
    Application("Vite", heavy=True, worker=node("pages.mjs", "vite", "{port}", "{directory}"), state=True,
                user=node("pages.mjs", "edits", "{port}", "{directory}")),
    Application("Streamlit", heavy=True, worker=STREAMLIT, state=True, user=node("pages.mjs", "typing", "{port}", "{directory}")),
]

"""nats-server with its WebSocket listener."""

import os
import pathlib
import sys

port, directory = sys.argv[1:]
config = pathlib.Path(directory) / "nats.conf"
config.write_text(f'host: "127.0.0.1"\nport: -1\nwebsocket {{ host: "127.0.0.1", port: {port}, no_tls: true }}\n')
os.execvp("nats-server", ["nats-server", "-c", str(config)])

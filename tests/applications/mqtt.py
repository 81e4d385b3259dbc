"""MQTT over WebSockets: Mosquitto, and paho that publishes with QoS 1 to a topic that it subscribes to; paho's own reconnect.
The protocol promises at least once: a message may come twice."""

import pathlib
import subprocess
import sys
import time

import talk


def worker(mosquitto, port, directory):
    config = pathlib.Path(directory) / "mosquitto.conf"
    # Without a listener that is no WebSocket this version does not start.
    config.write_text(
        f"listener {port} 127.0.0.1\nprotocol websockets\nsocket_domain ipv4\n"
        f"listener 0 {directory}/plain\nallow_anonymous true\nuser root\n"
    )
    sys.exit(subprocess.run([mosquitto, "-c", str(config)], check=False).returncode)


def user(port, version):
    import paho.mqtt.client as paho

    client = paho.Client(paho.CallbackAPIVersion.VERSION2, transport="websockets", protocol=version)

    def connected(client, _data, _flags, reason, _properties):
        if reason.is_failure:
            talk.told(reason)
        client.subscribe("said", qos=1)

    client.on_connect = connected
    client.on_disconnect = lambda _client, _data, _flags, reason, _properties: talk.told(reason)
    client.on_message = lambda _client, _data, message: talk.heard(int(message.payload))
    client.connect("127.0.0.1", port)
    client.loop_start()
    numbers = talk.Numbers()
    while True:
        if client.is_connected() and not talk.over.is_set():
            client.publish("said", str(numbers.next()), qos=1)
        time.sleep(talk.RHYTHM_SECONDS)


if __name__ == "__main__":
    if sys.argv[1] == "worker":
        worker(*sys.argv[2:])
    else:
        talk.listen_for_the_end()
        user(int(sys.argv[2]), int(sys.argv[3]))

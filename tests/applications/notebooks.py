"""Programs whose conversation is a process of the worker: a terminal of terminado, a kernel of a Jupyter server. A variable
that the user sets at the beginning tells its own process from another one. Their pages begin anew after a close."""

import asyncio
import json
import sys
import urllib.request
import uuid

import talk


def terminal(port):
    import terminado
    from tornado import ioloop, web

    manager = terminado.UniqueTermManager(shell_command=["sh"])
    web.Application([("/shell", terminado.TermSocket, {"term_manager": manager})]).listen(port, "127.0.0.1")
    ioloop.IOLoop.current().start()


class Shell:
    """What the page of a terminal says and shows."""

    path = "/shell"

    def __init__(self, socket, _port):
        self.socket, self.shown = socket, ""

    async def type(self, text):
        await self.socket.send(json.dumps(["stdin", text]))

    async def open(self):
        await self.type("mine=yes; PS1=\n")

    async def say(self, n):
        await self.type(f"echo said-$mine-{n}.\n")

    def show(self, message):
        kind, *rest = json.loads(message)
        if kind == "stdout":
            self.shown += rest[0]
            *lines, self.shown = self.shown.replace("\r", "").split("\n")
            for line in lines:
                verdict(line)


class Kernel:
    """What a notebook says and shows."""

    path = ""

    def __init__(self, socket, _port):
        self.socket, self.session = socket, uuid.uuid4().hex

    async def run(self, code):
        header = {"msg_id": uuid.uuid4().hex, "username": "", "session": self.session, "msg_type": "execute_request",
                  "version": "5.3"}
        content = {"code": code, "silent": False, "store_history": False, "user_expressions": {}, "allow_stdin": False}
        await self.socket.send(json.dumps({"header": header, "parent_header": {}, "metadata": {}, "content": content,
                                           "channel": "shell", "buffers": []}))

    async def open(self):
        await self.run("mine = 'yes'")

    async def say(self, n):
        await self.run(f"print('said-' + globals().get('mine', '') + '-{n}.')")

    def show(self, message):
        record = json.loads(message) if isinstance(message, str) else {}
        if record.get("msg_type") == "stream":
            for line in record["content"]["text"].splitlines():
                verdict(line)


def verdict(line):
    if line.startswith("said-yes-") and line.endswith("."):
        talk.heard(int(line[9:-1]))
    elif line.startswith("said--"):
        talk.wrong(f"another process: {line}")


def new_kernel(port):
    """Asks for a kernel, as the page does before it opens a socket."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}/api/kernels", data=b"{}", method="POST")
    with urllib.request.urlopen(request, timeout=20) as answer:
        return f"/api/kernels/{json.load(answer)['id']}/channels"


async def user(kind, port):
    from websockets.asyncio.client import connect
    from websockets.exceptions import WebSocketException

    numbers, page = talk.Numbers(), {"shell": Shell, "kernel": Kernel}[kind]

    async def work(mine):
        await mine.open()
        while not talk.over.is_set():
            await mine.say(numbers.next())
            await asyncio.sleep(talk.RHYTHM_SECONDS)

    while True:
        try:
            path = page.path or await asyncio.to_thread(new_kernel, port)
            async with connect(f"ws://127.0.0.1:{port}{path}", proxy=None, max_size=None) as socket:
                mine = page(socket, port)
                working = asyncio.create_task(work(mine))
                try:
                    async for message in socket:
                        mine.show(message)
                    talk.told(f"closed {socket.close_code} {socket.close_reason}")
                finally:
                    working.cancel()
        except (OSError, WebSocketException) as error:
            talk.told(error)
        await asyncio.sleep(0.1)


if __name__ == "__main__":
    if sys.argv[1] == "terminal":
        terminal(int(sys.argv[2]))
    else:
        talk.listen_for_the_end()
        asyncio.run(user(sys.argv[1], int(sys.argv[2])))

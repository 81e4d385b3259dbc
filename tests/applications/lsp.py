"""A language server over WebSockets: pylsp, asked for the outline of a document that its user has opened and edits."""

import asyncio
import itertools
import json
import sys

import talk

DOCUMENT = "file:///nowhere/a.py"


class Editor:
    """One connection of the user's editor."""

    def __init__(self, socket):
        self.socket, self.ids, self.answers = socket, itertools.count(1), {}

    async def tell(self, method, params):
        await self.socket.send(json.dumps({"jsonrpc": "2.0", "method": method, "params": params}))

    async def ask(self, method, params):
        number = next(self.ids)
        self.answers[number] = asyncio.get_running_loop().create_future()
        await self.socket.send(json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}))
        answer = await self.answers[number]
        if "error" in answer:
            raise ValueError(answer["error"])
        return answer["result"]

    async def read(self):
        async for message in self.socket:
            answer = json.loads(message)
            if "method" not in answer and answer.get("id") in self.answers:
                self.answers.pop(answer["id"]).set_result(answer)

    async def open(self, text):
        await self.ask("initialize", {"processId": None, "rootUri": None, "capabilities": {}})
        await self.tell("initialized", {})
        document = {"uri": DOCUMENT, "languageId": "python", "version": 0, "text": text}
        await self.tell("textDocument/didOpen", {"textDocument": document})

    async def edit(self, numbers):
        """Each edit names a function after its number, and the outline has to show it below the one that was there."""
        while not talk.over.is_set():
            n = numbers.next()
            line = {"line": 2, "character": 0}
            change = {"range": {"start": line, "end": {"line": 3, "character": 0}}, "text": f"def said_{n}(): pass\n"}
            document = {"uri": DOCUMENT, "version": n}
            await self.tell("textDocument/didChange", {"textDocument": document, "contentChanges": [change]})
            outline = await self.ask("textDocument/documentSymbol", {"textDocument": {"uri": DOCUMENT}})
            names = {symbol["name"] for symbol in outline or []}
            if {"first", f"said_{n}"} <= names:
                talk.heard(n)
            else:
                talk.wrong(f"{sorted(names)} instead of first and said_{n}")
            await asyncio.sleep(talk.RHYTHM_SECONDS)


async def user(port, compression):
    from websockets.asyncio.client import connect
    from websockets.exceptions import WebSocketException

    numbers = talk.Numbers()
    while True:
        try:
            async with connect(f"ws://127.0.0.1:{port}/", proxy=None, compression=compression) as socket:
                editor = Editor(socket)
                reading = asyncio.create_task(editor.read())
                await editor.open("def first(): pass\n\n\n")
                editing = asyncio.create_task(editor.edit(numbers))
                try:
                    await reading
                    talk.told(f"closed {socket.close_code} {socket.close_reason}")
                finally:
                    editing.cancel()
        except (OSError, WebSocketException, ValueError) as error:
            talk.told(error)
        await asyncio.sleep(0.1)


if __name__ == "__main__":
    talk.listen_for_the_end()
    asyncio.run(user(int(sys.argv[1]), "deflate" if sys.argv[2:] == ["compressed"] else None))

"""Two chats of the stabilizer's kind behind `stabilizer.toml`: client ids, heartbeats in messages, broadcasts, tokens.

What has to hold: the clients of one host name meet in one process; they outlive its kill and its drain and meet in the
other; a second connection of a client takes the place of the first; a dead token never costs a client its place.
"""

import asyncio

from rig import Socket, ask, eventually

CLIENTS = 12


async def run(run):
    a, b = await run.start("stabilizer", "a", "b")
    holdline = await run.holdline("stabilizer")
    await holdline.register(a)
    await holdline.register(b)
    clients = {f"c{n}": await Socket.open(holdline, f"/ws/c{n}") for n in range(CLIENTS)}
    home, other = await settle(run, clients, a, b)
    await heartbeats(run, clients, home)
    await broadcast(run, clients, "first", home)
    await replaced(run, holdline, clients)
    await proxys_own(run, holdline, clients)
    await home.kill()
    await eventually("all have moved", lambda: all_on(holdline, other), 10)
    await broadcast(run, clients, "second", other)
    await home.start()
    await holdline.up(home)
    await tokens(run, holdline, clients, other, home)
    run.same("no client was closed", {name: socket.closed for name, socket in clients.items() if socket.closed}, {})
    await asyncio.gather(*(socket.close() for socket in clients.values()))


async def all_on(holdline, worker):
    pipes = await holdline.pipes()
    return len(pipes) == CLIENTS and {pipe["backend"] for pipe in pipes} == {worker.name}


async def settle(run, clients, a, b):
    welcomes = [await socket.hear("a welcome", lambda said: said != "ping" and said["type"] == "connection") for socket in clients.values()]
    homes = {welcome["worker"] for welcome in welcomes}
    run.same("all clients of a host name meet in one process", len(homes), 1)
    home = a if homes == {"a"} else b
    return home, b if home is a else a


async def heartbeats(run, clients, home):
    for socket in clients.values():
        await socket.hear("a ping", lambda said: said == "ping")
        await socket.say("pong")

    async def ponged():
        return {record["client"] for record in home.journal() if record["did"] == "pong"} == set(clients)
    await eventually("every pong", ponged)
    run.check("pings of the application pass, and their pongs", True)


async def broadcast(run, clients, text, home):
    since = {name: len(socket.heard) for name, socket in clients.items()}
    await clients["c0"].say(text)
    heard = [await socket.hear(text, lambda said: said != "ping" and said.get("content") == text, since[name]) for name, socket in clients.items()]
    run.same(f"a broadcast reaches every client ({text})", {(said["user"], said["worker"]) for said in heard}, {("c0", home.name)})


async def replaced(run, holdline, clients):
    old = clients["c1"]
    clients["c1"] = await Socket.open(holdline, "/ws/c1")
    run.same("a second connection of a client takes the place of the first", (await old.end())[0], 1000)
    await clients["c1"].say("it is me")
    await clients["c1"].hear("its own words", lambda said: said != "ping" and said.get("content") == "it is me")
    run.same("and the new one stays", clients["c1"].closed, None)


async def proxys_own(run, holdline, clients):
    """What the library offers its application, the proxy offers an operator, over all workers."""
    answer = await holdline.api("POST", "/v1/broadcast", {"text": '"maintenance"', "route": "chat"})
    for socket in clients.values():
        await socket.hear("the operator", lambda said: said == "maintenance")
    run.same("a message of the operator reaches every client", answer["reached"], CLIENTS)


async def tokens(run, holdline, clients, home, other):
    """A client that came with a token: its worker has used it up, and the next one does not know it."""
    fresh = (await ask(home.address, "POST", "/reconnect-token/t1")).json()["reconnect_token"]
    clients["t1"] = await Socket.open(holdline, f"/ws/t1?token={fresh}")
    await clients["t1"].hear("a welcome", lambda said: said != "ping" and said["type"] == "connection")
    await holdline.api("PUT", f"/v1/backends/{home.name}/state", {"state": "drain"})

    async def moved():
        on = {pipe["backend"] for pipe in await holdline.pipes() if "t1" not in (pipe.get("client_id") or pipe.get("path") or "")}
        refused = [record for record in other.journal() if record["did"] == "refused"]
        return refused and sorted(on)
    await eventually("the next worker refuses the used token", moved)
    await clients["t1"].say("still here")
    said = await clients["t1"].hear("its own words", lambda said: said != "ping" and said.get("content") == "still here")
    run.same("a planned move that is refused leaves the client where it was", said["worker"], home.name)
    rest = {name: socket for name, socket in clients.items() if name != "t1"}

    async def on_other():
        pipes = await holdline.pipes()
        return len([pipe for pipe in pipes if pipe["backend"] == other.name]) == len(rest)
    await eventually("the others have moved", on_other)
    await broadcast(run, rest, "third", other)
    await holdline.ready(home)
    await clients.pop("t1").close()

"""OCPP 1.6: a central system that takes data only from a charge point that has booted on this connection."""

import asyncio
import sys

import talk


async def worker(port):
    from ocpp.exceptions import SecurityError
    from ocpp.routing import on
    from ocpp.v16 import ChargePoint, call_result
    from websockets.asyncio.server import serve

    class Central(ChargePoint):
        booted = False

        @on("BootNotification")
        def boot(self, **_):
            self.booted = True
            return call_result.BootNotification(current_time="2030-01-01T00:00:00Z", interval=60, status="Accepted")

        @on("DataTransfer")
        def transfer(self, vendor_id, data, **_):
            if not self.booted:
                raise SecurityError("not booted on this connection")
            return call_result.DataTransfer(status="Accepted", data=data)

    async def answer(socket):
        await Central(socket.request.path, socket).start()

    async with serve(answer, "127.0.0.1", port, subprotocols=["ocpp1.6"]) as server:
        await server.serve_forever()


async def user(port):
    from ocpp.v16 import ChargePoint, call
    from websockets.asyncio.client import connect
    from websockets.exceptions import WebSocketException

    numbers = talk.Numbers()

    async def report(point):
        await point.call(call.BootNotification(charge_point_model="m", charge_point_vendor="v"))
        while not talk.over.is_set():
            n = numbers.next()
            answer = await point.call(call.DataTransfer(vendor_id="v", data=str(n)))
            if answer and answer.data == str(n):
                talk.heard(n)
            else:
                talk.wrong(f"{answer} for {n}")
            await asyncio.sleep(talk.RHYTHM_SECONDS)

    while True:
        try:
            url = f"ws://127.0.0.1:{port}/CP_1"
            async with connect(url, subprotocols=["ocpp1.6"], proxy=None) as socket:
                point = ChargePoint("CP_1", socket, response_timeout=60)
                reporting = asyncio.create_task(report(point))
                try:
                    await point.start()
                finally:
                    reporting.cancel()
        except (OSError, WebSocketException) as error:
            talk.told(error)
        await asyncio.sleep(0.1)


if __name__ == "__main__":
    if sys.argv[1] == "worker":
        asyncio.run(worker(int(sys.argv[2])))
    else:
        talk.listen_for_the_end()
        asyncio.run(user(int(sys.argv[2])))

"""A provider that costs next to nothing: ``python -m tests.benchmarks.provider LATENCY_SCALE``.

The sandbox needs 6.6 ms of CPU for a batch of 1000, this one 1 ms, so that what is measured are its callers.
It answers /carrier_batch, /carrier and /balance as the contract has it, every seventeenth number ported, a
look-up at the documented latency times LATENCY_SCALE. GET /bill gives, as JSON, the calls made, numbers
billed, and again; GET /calls each call's POSIX seconds of asking and of answering, and its numbers.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections import Counter
from urllib.parse import parse_qs

import msgspec

from worker.carrier.protocol import Balance, FeeType
from worker.carrier.wire.answering import write_balance
from worker.sandbox.provider import Latency

_PORTED_EACH = 17


class _Batch(msgspec.Struct):
    numbers: list[str] = msgspec.field(name="PhoneNumbers")


_read = msgspec.json.Decoder(_Batch).decode


def _halves(spelling: str, res: str, now: str) -> tuple[bytes, bytes]:
    """An item before and after its number; the single call spells operators in another way."""
    item = {
        "code": 0,
        "reason": "成功",
        "result": {
            "res": res,
            "Mobile": "|",
            "Area": "湖北-宜昌",
            f"Init_{spelling}": "中国移动",
            f"Now_{spelling}": now,
        },
    }
    before, after = json.dumps(item, ensure_ascii=False).encode().split(b"|")
    return before, after


_ITEMS = {
    spelling: (_halves(spelling, "0", "中国移动"), _halves(spelling, "1", "中国电信"))
    for spelling in ("isp", "Isp")
}


def _item(number: str, spelling: str) -> bytes:
    before, after = _ITEMS[spelling][int(number) % _PORTED_EACH == 0]
    return before + number.encode() + after


class Provider:
    """Counts what it bills, by number."""

    def __init__(self, latency: Latency) -> None:
        self._latency = latency
        self._calls: list[tuple[float, float, list[str]]] = []
        self._billed: Counter[str] = Counter()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection's requests until it ends."""
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                body = await reader.readexactly(_length(head))
                answer = await self._answer(head, body)
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
                    % (len(answer), answer)
                )
                await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, head: bytes, body: bytes) -> bytes:
        if head.startswith(b"GET /bill "):
            billed = self._billed
            again = sum(times - 1 for times in billed.values())
            return json.dumps({"calls": len(self._calls), "billed": billed.total(), "again": again}).encode()
        if head.startswith(b"GET /calls "):
            return json.dumps(self._calls).encode()
        if head.startswith(b"POST /balance "):
            return write_balance(Balance(FeeType.POSTPAID, -self._billed.total()))
        asked = time.time()
        if head.startswith(b"POST /carrier_batch "):
            numbers = _read(body).numbers
            answer = b"[" + b",".join([_item(number, "Isp") for number in numbers]) + b"]"
        else:
            numbers = parse_qs(body.decode())["mobile"]
            answer = _item(numbers[0], "isp")
        self._billed.update(numbers)
        if self._latency.scale:
            await asyncio.sleep(self._latency.of(len(numbers)))
        self._calls.append((asked, time.time(), numbers))
        return answer


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


async def main(latency_scale: float) -> None:
    provider = Provider(Latency(scale=latency_scale))
    server = await asyncio.start_server(provider.serve, "127.0.0.1", 0, limit=2**20)
    print(f"provider http://127.0.0.1:{server.sockets[0].getsockname()[1]} ready", flush=True)  # noqa: T201
    asked_to_end = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, asked_to_end.set)
    await asked_to_end.wait()


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1])))

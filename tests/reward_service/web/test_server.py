import asyncio
import socket

from reward_service.web.server import _bound


def test_a_reply_in_two_writes_does_not_wait_for_an_acknowledgement() -> None:
    async def delays_small_writes() -> bool:
        delays: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            accepted = writer.get_extra_info("socket")
            delays.set_result(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        with _bound("127.0.0.1", 0) as listener:
            async with await asyncio.start_server(connected, sock=listener):
                _, writer = await asyncio.open_connection(*listener.getsockname())
                no_delay = await delays
                writer.close()
        return not no_delay

    assert not asyncio.run(delays_small_writes())

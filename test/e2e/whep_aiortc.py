"""Watches a WHEP endpoint with aiortc and prints one line of JSON for each decoded
frame: its size and the time that its strip shows (package strip), or null.

    whep_aiortc.py URL FRAMES SCREEN_WIDTH
"""
import asyncio
import json
import sys
import urllib.parse
import urllib.request

from aiortc import RTCPeerConnection, RTCSessionDescription

CELL, CELLS = 16, 34


def painted(frame, screen_width):
    gray = frame.reformat(format="gray")
    plane, line, scale = bytes(gray.planes[0]), gray.planes[0].line_size, frame.width / screen_width
    bits = [plane[int(CELL / 2 * scale) * line + int((i + 0.5) * CELL * scale)] > 127 for i in range(CELLS)]
    number = lambda bits: int("".join("1" if b else "0" for b in bits), 2)
    n, check = number(bits[2:26]), number(bits[26:])
    good = bits[0] and not bits[1] and check == (n ^ n >> 8 ^ n >> 16 ^ 0x5A) & 0xFF
    return n if good else None


async def main(url, count, screen_width):
    peer, done = RTCPeerConnection(), asyncio.get_running_loop().create_future()
    peer.addTransceiver("video", direction="recvonly")

    async def watch(track):
        try:
            for _ in range(count):
                frame = await track.recv()
                print(json.dumps({"width": frame.width, "height": frame.height, "painted": painted(frame, screen_width)}), flush=True)
            done.set_result(None)
        except Exception as e:
            done.set_exception(e)

    @peer.on("track")
    def on_track(track):
        asyncio.ensure_future(watch(track))

    await peer.setLocalDescription(await peer.createOffer())
    request = urllib.request.Request(url, peer.localDescription.sdp.encode(), {"Content-Type": "application/sdp"}, method="POST")
    with await asyncio.to_thread(urllib.request.urlopen, request) as response:
        session = urllib.parse.urljoin(url, response.headers["Location"])
        answer = response.read().decode()
    await peer.setRemoteDescription(RTCSessionDescription(answer, "answer"))
    await asyncio.wait_for(done, 60)
    with await asyncio.to_thread(urllib.request.urlopen, urllib.request.Request(session, method="DELETE")) as response:
        print(json.dumps({"left": response.status}), flush=True)
    await peer.close()


asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))

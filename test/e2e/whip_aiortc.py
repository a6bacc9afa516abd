"""Publishes a moving picture by WHIP with aiortc until it is ended.

    whip_aiortc.py URL CODEC
"""
import asyncio
import fractions
import json
import sys
import urllib.parse
import urllib.request

import numpy
from aiortc import RTCPeerConnection, RTCRtpSender, RTCSessionDescription, VideoStreamTrack
from av import VideoFrame


class Bars(VideoStreamTrack):
    """A bar that moves over a grey ground, 320x180, 15 frames a second."""

    n = 0

    async def recv(self):
        await asyncio.sleep(1 / 15)
        picture = numpy.full((180, 320, 3), 90, numpy.uint8)
        at = self.n * 7 % 280
        picture[:, at:at + 40] = (40, 200, 60)
        frame = VideoFrame.from_ndarray(picture, format="rgb24")
        frame.pts, frame.time_base = self.n * 6000, fractions.Fraction(1, 90000)
        self.n += 1
        return frame


async def main(url, codec):
    peer = RTCPeerConnection()
    sender = peer.addTransceiver(Bars(), direction="sendonly")
    codecs = RTCRtpSender.getCapabilities("video").codecs
    sender.setCodecPreferences([c for c in codecs if c.mimeType == "video/" + codec])
    await peer.setLocalDescription(await peer.createOffer())
    request = urllib.request.Request(url, peer.localDescription.sdp.encode(), {"Content-Type": "application/sdp"}, method="POST")
    with await asyncio.to_thread(urllib.request.urlopen, request) as response:
        location = urllib.parse.urljoin(url, response.headers["Location"])
        answer = response.read().decode()
    await peer.setRemoteDescription(RTCSessionDescription(answer, "answer"))
    print(json.dumps({"location": location}), flush=True)
    await asyncio.Event().wait()


asyncio.run(main(sys.argv[1], sys.argv[2]))

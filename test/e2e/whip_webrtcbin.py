"""Publishes a moving picture by WHIP with GStreamer's webrtcbin until it is ended.

    whip_webrtcbin.py URL CODEC
"""
import json
import sys
import urllib.parse
import urllib.request

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstSdp", "1.0")
gi.require_version("GstWebRTC", "1.0")
from gi.repository import GLib, Gst, GstSdp, GstWebRTC  # noqa: E402

ENCODERS = {
    "H264": "x264enc tune=zerolatency speed-preset=ultrafast key-int-max=60 bitrate=500 ! video/x-h264,profile=constrained-baseline"
            " ! h264parse ! rtph264pay config-interval=-1 aggregate-mode=zero-latency ! application/x-rtp,media=video,encoding-name=H264,payload=102",
    "VP8": "vp8enc deadline=1 target-bitrate=500000 keyframe-max-dist=60 ! rtpvp8pay picture-id-mode=15-bit"
           " ! application/x-rtp,media=video,encoding-name=VP8,payload=96",
}


def main(url, codec):
    Gst.init(None)
    pipeline = Gst.parse_launch(
        "webrtcbin name=w bundle-policy=max-bundle videotestsrc is-live=true pattern=ball ! video/x-raw,width=320,height=180,framerate=15/1,format=I420 ! "
        + ENCODERS[codec] + " ! w.")
    peer = pipeline.get_by_name("w")
    loop = GLib.MainLoop()

    def post():
        offer = peer.get_property("local-description").sdp.as_text()
        request = urllib.request.Request(url, offer.encode(), {"Content-Type": "application/sdp"}, method="POST")
        with urllib.request.urlopen(request) as response:
            location = urllib.parse.urljoin(url, response.headers["Location"])
            answer = response.read()
        _, sdp = GstSdp.SDPMessage.new_from_text(answer.decode())
        description = GstWebRTC.WebRTCSessionDescription.new(GstWebRTC.WebRTCSDPType.ANSWER, sdp)
        peer.emit("set-remote-description", description, Gst.Promise.new())
        print(json.dumps({"location": location}), flush=True)

    def gathered(*_):
        if peer.get_property("ice-gathering-state") == GstWebRTC.WebRTCICEGatheringState.COMPLETE:
            GLib.idle_add(post)

    def created(promise, *_):
        reply = promise.get_reply()  # owns the offer
        offer = reply.get_value("offer")
        peer.emit("set-local-description", offer, Gst.Promise.new())

    def negotiate(*_):
        peer.emit("get-transceiver", 0).set_property("direction", GstWebRTC.WebRTCRTPTransceiverDirection.SENDONLY)
        peer.emit("create-offer", None, Gst.Promise.new_with_change_func(created, None))

    peer.connect("notify::ice-gathering-state", gathered)
    peer.connect("on-negotiation-needed", negotiate)
    pipeline.set_state(Gst.State.PLAYING)
    loop.run()


main(sys.argv[1], sys.argv[2])

"""Watches a WHEP endpoint with GStreamer's webrtcbin (libnice) and prints one line
of JSON: how many pictures it decoded, and what DELETE says.

    whep_webrtcbin.py URL FRAMES [CODEC]
"""
import json
import sys
import urllib.parse
import urllib.request

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstSdp", "1.0")
gi.require_version("GstWebRTC", "1.0")
from gi.repository import GLib, Gst, GstSdp, GstWebRTC

Gst.init(None)


DECODERS = {"VP8": "rtpvp8depay ! vp8dec", "H264": "rtph264depay ! h264parse ! openh264dec"}


def main(url, count, codec="VP8"):
    loop, state = GLib.MainLoop(), {"frames": 0, "location": None}
    pipeline = Gst.Pipeline.new()
    peer = Gst.ElementFactory.make("webrtcbin")
    peer.set_property("bundle-policy", GstWebRTC.WebRTCBundlePolicy.MAX_BUNDLE)
    pipeline.add(peer)

    def frame(*_):
        state["frames"] += 1
        if state["frames"] == count:
            GLib.idle_add(loop.quit)

    def on_pad(_, pad):
        if pad.direction != Gst.PadDirection.SRC:
            return
        sink = Gst.parse_bin_from_description(DECODERS[codec] + " ! videoconvert ! fakesink name=out signal-handoffs=true sync=false", True)
        sink.get_by_name("out").connect("handoff", frame)
        pipeline.add(sink)
        sink.sync_state_with_parent()
        pad.link(sink.get_static_pad("sink"))

    def on_gathered(peer, _):
        if peer.get_property("ice-gathering-state") != GstWebRTC.WebRTCICEGatheringState.COMPLETE:
            return
        offer = peer.get_property("local-description").sdp.as_text()
        request = urllib.request.Request(url, offer.encode(), {"Content-Type": "application/sdp"})
        with urllib.request.urlopen(request) as r:
            state["location"], text = urllib.parse.urljoin(url, r.headers["Location"]), r.read().decode()
        _, sdp = GstSdp.SDPMessage.new_from_text(text)
        answer = GstWebRTC.WebRTCSessionDescription.new(GstWebRTC.WebRTCSDPType.ANSWER, sdp)
        peer.emit("set-remote-description", answer, Gst.Promise.new())

    def offered(promise, *_):
        reply = promise.get_reply()  # owns the offer
        offer = reply.get_value("offer")
        peer.emit("set-local-description", offer, Gst.Promise.new())

    peer.connect("pad-added", on_pad)
    peer.connect("notify::ice-gathering-state", lambda p, n: GLib.idle_add(on_gathered, p, n))
    caps = Gst.Caps.from_string(f"application/x-rtp,media=video,encoding-name={codec},clock-rate=90000,payload=96")
    peer.emit("add-transceiver", GstWebRTC.WebRTCRTPTransceiverDirection.RECVONLY, caps)
    pipeline.set_state(Gst.State.PLAYING)
    peer.emit("create-offer", None, Gst.Promise.new_with_change_func(offered, None))
    GLib.timeout_add_seconds(30, loop.quit)
    loop.run()
    left = 0
    if state["location"]:
        with urllib.request.urlopen(urllib.request.Request(state["location"], method="DELETE")) as r:
            left = r.status
    print(json.dumps({"frames": state["frames"], "left": left}), flush=True)
    pipeline.set_state(Gst.State.NULL)


main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])

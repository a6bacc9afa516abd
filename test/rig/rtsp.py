# An RTSP server for tests: rtsp.py PORT MOUNT LAUNCH [MOUNT LAUNCH]...
# Each launch text has its payloaders named pay0, pay1 …; one pipeline serves all
# clients of a mount. Prints "ready", or "missing" where the bindings are not installed.
import sys

try:
    import gi
    gi.require_version("Gst", "1.0")
    gi.require_version("GstRtspServer", "1.0")
    from gi.repository import GLib, Gst, GstRtspServer
except (ImportError, ValueError) as err:
    print("missing: %s" % err, flush=True)
    sys.exit(1)

Gst.init(None)
server = GstRtspServer.RTSPServer()
server.set_address("127.0.0.1")
server.set_service(sys.argv[1])
for mount, launch in zip(sys.argv[2::2], sys.argv[3::2]):
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch("( " + launch + " )")
    factory.set_shared(True)
    server.get_mount_points().add_factory("/" + mount, factory)
if server.attach(None) == 0:
    sys.exit("port %s is taken" % sys.argv[1])
print("ready", flush=True)
GLib.MainLoop().run()

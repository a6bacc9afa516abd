"""A client made from docs/protocol.md alone, with nothing but Python's library: it joins
a room, greets who comes, answers what it is told and leaves when it is told "bye".

    python3 ws_stranger.py ws://HOST:PORT/ws ROOM NAME [TOKEN]
"""
import base64, json, os, socket, struct, sys
from urllib.parse import urlsplit


class Socket:
    """As much of RFC 6455 as it takes: text, ping and close frames."""

    def __init__(self, url):
        u = urlsplit(url)
        self.s = socket.create_connection((u.hostname, u.port), timeout=30)
        self.s.sendall((f"GET {u.path} HTTP/1.1\r\nHost: {u.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                        f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}\r\nSec-WebSocket-Version: 13\r\n\r\n").encode())
        self.f = self.s.makefile("rb")
        assert b" 101 " in self.f.readline()
        while self.f.readline() != b"\r\n":
            pass

    def frame(self, opcode, data):
        n, mask = len(data), os.urandom(4)
        size = bytes([0x80 | n]) if n < 126 else b"\xfe" + struct.pack(">H", n)
        self.s.sendall(bytes([0x80 | opcode]) + size + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(data)))

    def say(self, **message):
        self.frame(1, json.dumps(message).encode())

    def hear(self):
        while True:
            opcode, n = self.f.read(2)
            n = struct.unpack(">H", self.f.read(2))[0] if n == 126 else n
            data = self.f.read(n)
            if opcode == 0x89:
                self.frame(10, data)
            elif opcode == 0x88:
                return {"type": "closed", "code": struct.unpack(">H", data[:2])[0]}
            else:
                return json.loads(data)


url, room, name, *token = sys.argv[1:]
ws = Socket(url)
ws.say(type="join", roomId=room, version=1, name=name, **({"token": token[0]} if token else {}))
while True:
    m = ws.hear()
    if m["type"] == "joined":
        print("joined", m["userId"], ",".join(p["name"] for p in m.get("participants", [])), flush=True)
    elif m["type"] == "participant-joined":
        ws.say(type="message", target=m["participant"]["userId"], data={"hello": m["participant"]["name"]})
    elif m["type"] == "message":
        print("told", json.dumps(m["data"]), flush=True)
        if "hello" in m["data"]:
            ws.say(type="message", target=m["userId"], data="bye")
        if m["data"] == "bye":
            ws.say(type="leave")
    elif m["type"] in ("left", "error"):
        print(m["type"], m.get("reason") or m.get("code"), flush=True)
    elif m["type"] == "closed":
        sys.exit(0 if m["code"] == 1000 else 1)

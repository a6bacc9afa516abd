// Inline in the watch page: joins while the modules load, and has the browser start its WebRTC threads. signaling.js and viewer.js
// take over what is begun here.
(() => {
  const socket = new WebSocket(new URL('../ws', location.href).href.replace(/^http/, 'ws'));
  const types = (kind) => [...new Set((RTCRtpReceiver.getCapabilities?.(kind)?.codecs ?? []).map((codec) => codec.mimeType))];
  const join = {
    roomId: decodeURIComponent(location.pathname.replace(/\/+$/, '').replace(/^.*\//, '')),
    version: 1,
    codecs: { video: types('video'), audio: types('audio') },
  };
  const messages = [];
  socket.onopen = () => socket.send(JSON.stringify({ type: 'join', ...join }));
  socket.onmessage = (event) => messages.push(event);
  globalThis.gatewayEarly = { socket, join, messages, pc: new RTCPeerConnection({ bundlePolicy: 'max-bundle' }) };
})();

// Inline in the watch page: joins and answers the first offer while the modules load, which take a slow machine longer than all of that.
// signaling.js and receiver.js take over what is begun here.
(() => {
  if (/[#&]token=/.test(location.hash)) return; // nobody is known by it yet
  const socket = new WebSocket(new URL('../ws', location.href).href.replace(/^http/, 'ws'));
  const pc = new RTCPeerConnection({ bundlePolicy: 'max-bundle' });
  const types = (kind) => [...new Set((RTCRtpReceiver.getCapabilities?.(kind)?.codecs ?? []).map((codec) => codec.mimeType))];
  const rendition = new URLSearchParams(location.search).get('rendition');
  const join = {
    roomId: decodeURIComponent(location.pathname.replace(/\/+$/, '').replace(/^.*\//, '')),
    version: 1,
    role: 'viewer',
    codecs: { video: types('video'), audio: types('audio') },
    ...(rendition && rendition !== 'auto' ? { rendition } : {}),
  };
  const early = { socket, join, messages: [], pc, answer: null, sent: 0 };
  globalThis.gatewayEarly = early;

  let session;
  const send = (type, fields) => {
    if (socket.readyState !== WebSocket.OPEN) return;
    if (type !== 'join') early.sent++;
    socket.send(JSON.stringify({ type, ...fields }));
  };
  const answer = async (sdp) => {
    await pc.setRemoteDescription({ type: 'offer', sdp });
    const { sdp: text } = await pc.createAnswer();
    // Opus in stereo (RFC 7587 §6.1), as receiver.js asks for it
    await pc.setLocalDescription({ type: 'answer', sdp: text.replace(/^(a=fmtp:\d+ (?=.*useinbandfec=1)(?!.*stereo=1).*)$/m, '$1;stereo=1') });
    performance.mark('gateway:answer');
    send('answer', { session, sdp: pc.localDescription.sdp });
  };
  socket.onopen = () => send('join', join);
  socket.onmessage = (event) => {
    early.messages.push(event);
    const message = JSON.parse(event.data);
    if (message.type === 'joined') {
      session = message.session;
      pc.setConfiguration({ bundlePolicy: 'max-bundle', iceServers: message.iceServers ?? [], iceTransportPolicy: message.iceTransportPolicy ?? 'all' });
      pc.onicecandidate = ({ candidate }) => send('ice-candidate', { session, candidate: candidate?.candidate ? candidate.toJSON() : null });
    } else if (message.type === 'offer' && !early.answer && !/[?&]relay/.test(location.search)) {
      early.answer = { sdp: message.sdp, done: answer(message.sdp) };
      early.answer.done.catch(() => {}); // receiver.js says it
    }
  };
})();

/**
 * The RTCPeerConnection on which a gateway sends: it answers offers, restarts ICE when the way breaks, and tells which tracks come. It is
 * one connection a session, however many streams are watched.
 *
 * @module
 */

/** How long ICE may be "disconnected" before it is restarted. */
const restartAfter = 3_000;
/** How long a negotiation may take until media can flow; then the session is given up. */
const connectWithin = 15_000;

/**
 * The codecs that this browser receives, best first, as the join message lists them.
 *
 * @returns {{ video: string[], audio: string[] }}
 */
export function receivableCodecs() {
  const list = (kind) => {
    // asking takes a browser time; the page may have asked already
    const types = globalThis.gatewayEarly?.join.codecs[kind] ?? (RTCRtpReceiver.getCapabilities?.(kind)?.codecs ?? []).map((codec) => codec.mimeType);
    return [...new Set(types)].filter((type) => !/\/(rtx|red|ulpfec|flexfec.*|cn|telephone-event)$/i.test(type));
  };
  return { video: list('video'), audio: list('audio') };
}

/**
 * The video tracks that this browser can decode.
 *
 * @param {import('./viewer.js').Track[]?} [tracks] null or none: those of a stream whose source isn't there
 * @param {string[]} [types] as receivableCodecs lists them; none: the browser doesn't say
 * @returns {import('./viewer.js').Track[]} in the same order
 */
export function decodable(tracks, types = receivableCodecs().video) {
  const known = types.map((type) => type.toLowerCase());
  return (tracks ?? []).filter(({ kind, codec }) => kind === 'video' && (!known.length || known.includes(`video/${codec}`)));
}

/**
 * Brings media in line with the tracks that come.
 *
 * @param {MediaStream} media
 * @param {MediaStreamTrack[]} tracks
 * @returns {boolean} whether that changed it
 */
export function align(media, tracks) {
  const gone = media.getTracks().filter((track) => !tracks.includes(track));
  const come = tracks.filter((track) => !media.getTracks().includes(track));
  gone.forEach((track) => media.removeTrack(track));
  come.forEach((track) => media.addTrack(track));
  return gone.length + come.length > 0;
}

/**
 * An answer that asks for both channels: Chromium plays Opus in mono otherwise (RFC 7587 §6.1).
 *
 * @param {string} sdp
 * @returns {string}
 */
function inStereo(sdp) {
  return sdp.replace(/^(a=fmtp:\d+ (?=.*useinbandfec=1)(?!.*stereo=1).*)$/gm, '$1;stereo=1');
}

/**
 * The answer that the page itself made to this offer (early.js), once.
 *
 * @param {RTCPeerConnection} pc
 * @param {string} sdp the offer
 * @returns {Promise<void>|undefined}
 */
function answered(pc, sdp) {
  const early = globalThis.gatewayEarly;
  if (early?.adopted !== pc || early.answer?.sdp !== sdp) return;
  const { done } = early.answer;
  early.answer = null;
  return done;
}

/** The connection that the page made before its modules were there (early.js), once, if its socket was taken over too. */
function begun() {
  const early = globalThis.gatewayEarly;
  const pc = early?.pc;
  if (!pc) return;
  early.pc = null;
  if (early.kept) return (early.adopted = pc);
  pc.close(); // its socket is lost, and its session with it
}

/**
 * The parts of an offer or answer.
 *
 * @param {string} [sdp]
 * @returns {{ kind: string, mid: string, stream: string, refused: boolean }[]} stream: of a=msid (RFC 8830), empty without one
 */
export function mediaSections(sdp = '') {
  return sdp.split(/^m=/m).slice(1).map((section) => ({
    kind: /^\w+/.exec(section)?.[0] ?? '',
    mid: /^a=mid:(\S+)/m.exec(section)?.[1] ?? '',
    stream: /^a=msid:(\S+)/m.exec(section)?.[1] ?? '',
    refused: /^\w+ 0 /.test(section),
  }));
}

/**
 * A track that comes, and the stream that the offer names for it.
 *
 * @typedef {{ track: MediaStreamTrack, mid: string?, stream: string }} Incoming
 */

/**
 * Receives on one connection a session.
 *
 * Events: `tracks` (which tracks come may have changed), `channel` (detail: a data channel that the gateway opens), `connected` (media can
 * flow), `interrupted` (ICE is being restarted), `refused` (detail: the sections of an offer that this browser had to refuse) and `lost`
 * (detail: {code, message}: the session has to be joined anew).
 */
export class Receiver extends EventTarget {
  #signaling;
  #policy;
  /** @type {RTCPeerConnection?} */
  #pc = null;
  #session = '';
  #restartTimer = 0;
  #connectTimer = 0;
  /** Whether a restart is under way. */
  #restarting = false;
  /** @type {Promise<void>} negotiation steps, one after the other */
  #steps = Promise.resolve();
  /** Counts sessions: a step of an older one does nothing. */
  #epoch = 0;
  /** Which stream each m-line carries, as the last offer says; an m-line may change its stream. @type {Map<string, string>} */
  #streams = new Map();

  /**
   * @param {import('./signaling.js').Signaling} signaling
   * @param {RTCIceTransportPolicy} [iceTransportPolicy] "relay" uses TURN only; so does a gateway that says so
   */
  constructor(signaling, iceTransportPolicy = 'all') {
    super();
    this.#signaling = signaling;
    this.#policy = iceTransportPolicy;
  }

  /** The connection of the running session; null before open and after close. */
  get peerConnection() {
    return this.#pc;
  }

  /** Whether media can flow. */
  get connected() {
    return this.#pc?.connectionState === 'connected';
  }

  /** What comes now. Before the answer what was just offered counts too: the first frame should not wait for a round trip. @returns {Incoming[]} */
  get incoming() {
    const pc = this.#pc;
    if (!pc) return [];
    return pc.getTransceivers().filter((t) => !t.stopped && /recv/.test(t.currentDirection ?? t.direction) && this.#streams.has(t.mid))
      .map((t) => ({ track: t.receiver.track, mid: t.mid, stream: this.#streams.get(t.mid) }));
  }

  /** Makes the connection of the next session. */
  renew() {
    this.close();
    const pc = begun() ?? new RTCPeerConnection({ bundlePolicy: 'max-bundle' });
    this.#pc = pc;
    if (this.#policy !== 'all') this.#configure({ iceTransportPolicy: this.#policy });
    pc.onicecandidate = ({ candidate }) => {
      // an empty candidate string is a browser's other way to say that there are no more
      this.#signaling.send('ice-candidate', { candidate: candidate?.candidate ? candidate.toJSON() : null, session: this.#session });
    };
    pc.ontrack = ({ receiver }) => {
      lowerDelay(receiver);
      this.dispatchEvent(new Event('tracks'));
    };
    pc.ondatachannel = ({ channel }) => this.dispatchEvent(new CustomEvent('channel', { detail: channel }));
    pc.onconnectionstatechange = () => this.#watch(pc);
  }

  /** A session begins, before its first offer and so before candidates are gathered. @param {object} joined the gateway's message */
  begin({ session, iceServers, iceTransportPolicy }) {
    this.#session = session;
    this.#configure({
      ...(iceServers?.length ? { iceServers } : {}),
      ...(iceTransportPolicy === 'relay' ? { iceTransportPolicy } : {}),
    });
  }

  /** The session goes on with another socket; media may need another way too. @param {boolean} moved whether the network has changed */
  resume(moved) {
    const pc = this.#pc;
    if (!pc?.remoteDescription) return;
    if (this.#restarting) this.#expect('connection-lost'); // what asked for it comes with the new socket
    else if (moved || pc.connectionState === 'failed' || pc.connectionState === 'disconnected') this.#restart();
    else if (!this.connected) this.#expect('no-path');
  }

  /**
   * Answers an offer.
   *
   * @param {string} sdp
   * @param {{ mid: string, stream: string }[]} [tracks] what its m-lines carry; otherwise their msid says it
   */
  offer(sdp, tracks) {
    this.#step((pc) => {
      this.#streams = new Map((tracks ?? mediaSections(sdp)).map(({ mid, stream }) => [mid, stream]));
      return this.#answer(pc, sdp);
    });
  }

  /** Takes a candidate of the gateway. @param {RTCIceCandidateInit?} candidate null: there are no more */
  candidate(candidate) {
    this.#step((pc) => pc.addIceCandidate(candidate ?? undefined).catch(() => {}));
  }

  /** Stops waiting for a session that is being joined anew; what comes meanwhile still plays. */
  rest() {
    clearTimeout(this.#connectTimer);
    clearTimeout(this.#restartTimer);
  }

  /** Ends the connection. */
  close() {
    this.#epoch++;
    this.#session = '';
    this.#restarting = false;
    this.#streams.clear();
    this.rest();
    const pc = this.#pc;
    this.#pc = null;
    if (pc) {
      pc.onicecandidate = pc.ontrack = pc.ondatachannel = pc.onconnectionstatechange = null;
      pc.close();
    }
  }

  /** Changes the connection's configuration. @param {RTCConfiguration} changes */
  #configure(changes) {
    const pc = this.#pc;
    if (pc && Object.keys(changes).length) pc.setConfiguration({ ...pc.getConfiguration(), ...changes });
  }

  #lose(code, message = '') {
    this.dispatchEvent(new CustomEvent('lost', { detail: { code, message } }));
  }

  /** @param {(pc: RTCPeerConnection) => Promise<unknown>} step */
  #step(step) {
    const epoch = this.#epoch;
    this.#steps = this.#steps.then(async () => {
      if (epoch !== this.#epoch || !this.#pc) return;
      try {
        await step(this.#pc);
      } catch (err) {
        if (epoch !== this.#epoch) return;
        console.error('gateway: negotiation:', err);
        this.#lose('negotiation', String(err));
      }
    });
  }

  async #answer(pc, sdp) {
    this.#expect('no-path');
    const early = answered(pc, sdp);
    if (early) {
      await early;
      if (pc !== this.#pc) return;
      pc.getReceivers().forEach(lowerDelay);
      this.#watch(pc);
    } else {
      await pc.setRemoteDescription({ type: 'offer', sdp });
      const answer = await pc.createAnswer();
      await pc.setLocalDescription({ type: 'answer', sdp: inStereo(answer.sdp) });
      if (pc !== this.#pc) return;
      performance.mark('gateway:answer');
      this.#signaling.send('answer', { session: this.#session, sdp: pc.localDescription.sdp });
    }
    this.dispatchEvent(new Event('tracks'));
    if (this.connected && pc.iceConnectionState !== 'disconnected') {
      clearTimeout(this.#connectTimer); // a restart while all is well need not be seen in the state
      this.#restarting = false;
    }
    const answers = mediaSections(pc.localDescription.sdp);
    const refused = mediaSections(sdp).filter((offered, i) => !offered.refused && answers[i]?.refused)
      .map((section) => ({ ...section, stream: this.#streams.get(section.mid) ?? section.stream }));
    if (refused.length) this.dispatchEvent(new CustomEvent('refused', { detail: refused }));
  }

  #expect(code) {
    clearTimeout(this.#connectTimer);
    this.#connectTimer = setTimeout(() => this.#lose(code), connectWithin);
  }

  /** Answers changes of the connection's state. @param {RTCPeerConnection} pc */
  #watch(pc) {
    clearTimeout(this.#restartTimer);
    switch (pc.connectionState) {
      case 'connected':
        clearTimeout(this.#connectTimer);
        this.#restarting = false;
        performance.mark('gateway:connected');
        this.dispatchEvent(new Event('connected'));
        break;
      case 'disconnected':
        this.#signaling.check(); // one that is lost too comes back first, and then brings the restart
        this.#restartTimer = setTimeout(() => this.#restart(), restartAfter);
        break;
      case 'failed':
        if (this.#signaling.state !== 'open' && this.#signaling.resumable) break; // resume sees to it
        if (this.#restarting) this.#lose('connection-lost');
        else this.#restart();
        break;
    }
  }

  #restart() {
    if (!this.#signaling.send('restart-ice')) return;
    this.#restarting = true;
    if (!this.connected) this.dispatchEvent(new Event('interrupted'));
    this.#expect('connection-lost');
  }
}

/** Asks for the shortest jitter buffer that the browser has. @param {RTCRtpReceiver} receiver */
function lowerDelay(receiver) {
  if ('jitterBufferTarget' in receiver) receiver.jitterBufferTarget = 0;
  else if ('playoutDelayHint' in receiver) receiver.playoutDelayHint = 0;
}

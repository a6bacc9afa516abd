/**
 * Sending a camera, a microphone or a screen into a room: on one RTCPeerConnection of its own, which the browser offers. It draws
 * nothing.
 *
 * @module
 */

import { captureCamera, captureScreen } from './capture.js';

export { captureCamera, captureScreen, captureWords, devices } from './capture.js';

/** How long a negotiation may take until the gateway answers. */
const answerWithin = 15_000;
/** How long ICE may be "disconnected" before it is restarted. */
const restartAfter = 3_000;

/** How long the gateway may take to follow what was muted here. */
const settleWithin = 1_500;

/** From how many pixels of width on a camera is sent in several sizes. */
const simulcastFrom = 640;

/** The sizes of a camera, best first: a share of its pixels and bit/s. */
const layers = [
  { rid: 'high', scaleResolutionDownBy: 1, maxBitrate: 1_800_000 },
  { rid: 'mid', scaleResolutionDownBy: 2, maxBitrate: 500_000 },
  { rid: 'low', scaleResolutionDownBy: 4, maxBitrate: 150_000 },
];

/**
 * Something that is published.
 *
 * @typedef {object} Source
 * @property {string} label its name among this participant's streams: a-z, 0-9 and -, at most 32
 * @property {string} title for people
 * @property {'camera'|'screen'|'media'} kind
 * @property {MediaStream} media what is sent, to show as a preview
 * @property {string} stream its name in the room, empty until the gateway has answered
 * @property {{ audio: boolean, video: boolean }} muted
 */

/**
 * Publishes into a room. It follows the room: a session that is taken up again keeps the connection, a new one gets everything anew.
 *
 * Events: `change` (sources came, went, were muted, or got their names), `forced` (detail: {kind, on}: a host has muted it, or lifted
 * that), `error` (detail: {code, message}).
 */
export class Publisher extends EventTarget {
  /** @type {import('./room.js').Room} */
  #room;
  /** @type {RTCPeerConnection?} */
  #pc = null;
  /** @type {Map<string, { source: Source, transceivers: RTCRtpTransceiver[] }>} */
  #published = new Map();
  /** @type {Promise<unknown>} */
  #steps = Promise.resolve();
  /** @type {((message: object) => void)?} takes the answer to the offer that is out, or what refuses it */
  #answer = null;
  #asks = 0;
  #asked = '';
  /** Candidates that came before the answer. @type {(RTCIceCandidateInit|undefined)[]} */
  #early = [];
  /** The kinds of which the gateway was told that all is muted here. @type {Set<string>} */
  #told = new Set();
  /** What the gateway will say because of that, and until when it is waited for. @type {Record<'audio'|'video', { on: boolean, until: number }[]>} */
  #echoes = { audio: [], video: [] };
  #restartTimer = 0;
  /** Whether ICE is being restarted, and whether an offer failed that has to be made again. */
  #restarting = false;
  #stale = false;

  /** @param {import('./room.js').Room} room */
  constructor(room) {
    super();
    this.#room = room;
    room.addEventListener('publish', (event) => this.#receive(event.detail));
    room.addEventListener('joined', (event) => this.#follow(event.detail));
    room.addEventListener('muted', ({ detail: { kind, on } }) => this.#muted(kind, on));
    room.addEventListener('participants', () => {
      if (this.#published.size && room.session && !room.self.can.has('publish')) this.close(); // a host has taken that back
    });
    room.addEventListener('closed', () => this.close());
  }

  /** What is published. @returns {Source[]} */
  get sources() {
    return [...this.#published.values()].map(({ source }) => source);
  }

  /** Whether a host has muted a kind: the gateway says that it is muted, and it isn't from here. @param {'audio'|'video'} kind */
  forced(kind) {
    const me = this.#room.participants.get(this.#room.self.userId);
    return Boolean(me?.muted?.includes(kind)) && !this.#told.has(kind) && !this.#awaited(kind).length;
  }

  #awaited(kind) {
    return (this.#echoes[kind] = this.#echoes[kind].filter(({ until }) => until > performance.now()));
  }

  /** The gateway mutes or unmutes: as it was asked from here, or by a host. */
  #muted(kind, on) {
    const echo = this.#awaited(kind).findIndex((awaited) => awaited.on === on);
    if (echo < 0) this.dispatchEvent(new CustomEvent('forced', { detail: { kind, on } }));
    else this.#echoes[kind].splice(0, echo + 1);
    this.dispatchEvent(new Event('change'));
  }

  /** The connection, or null while nothing is published. */
  get peerConnection() {
    return this.#pc;
  }

  /**
   * Publishes a camera with its microphone.
   *
   * @param {{ video?: boolean|MediaTrackConstraints, audio?: boolean|MediaTrackConstraints, title?: string }} [options]
   * @returns {Promise<Source>} rejected with what captureWords explains
   */
  async camera({ video, audio, title = 'Camera' } = {}) {
    return this.publish(await captureCamera({ video, audio }), { label: 'camera', title, kind: 'camera' });
  }

  /** Publishes a screen. @returns {Promise<Source>} rejected with what captureWords explains */
  async screen({ title = 'Screen' } = {}) {
    return this.publish(await captureScreen(), { label: 'screen', title, kind: 'screen' });
  }

  /**
   * Publishes any media: a canvas, a file that plays, what was captured elsewhere. Of what had the same label before, tracks that stay go
   * on, and the others end. A source ends with its last track.
   *
   * @param {MediaStream} media
   * @param {{ label: string, title?: string, kind?: 'camera'|'screen'|'media' }} options
   * @returns {Source}
   */
  publish(media, { label, title = label, kind = 'media' }) {
    if (!/^[a-z0-9-]{1,32}$/.test(label)) throw new TypeError(`label "${label}" isn't a-z, 0-9 and -, at most 32`);
    const before = this.#published.get(label);
    const tracks = media.getTracks();
    const stays = ({ sender }) => tracks.includes(sender.track);
    for (const transceiver of before?.transceivers ?? []) if (!stays(transceiver)) transceiver.stop();
    for (const track of before?.source.media.getTracks() ?? []) if (!tracks.includes(track)) track.stop();
    const source = { label, title, kind, media, stream: before?.source.stream ?? '', muted: { audio: false, video: false } };
    this.#published.set(label, { source, transceivers: before?.transceivers.filter(stays) ?? [] });
    for (const track of tracks) {
      track.enabled = true;
      this.#endWith(label, track);
    }
    this.#changed();
    this.#negotiate();
    return source;
  }

  /** Ends a source. @param {string} label */
  stop(label) {
    const stream = this.#published.get(label)?.source.stream;
    if (!this.#remove(label)) return;
    if (stream) this.#room.send('unpublish', { stream });
    this.#changed();
    if (this.#published.size) this.#negotiate();
    else this.#drop();
  }

  /**
   * Sends nothing of a kind, or goes on, without negotiation. A muted camera is let go, so that its light goes out; to go on it is
   * captured again.
   *
   * @param {string} label
   * @param {'audio'|'video'} kind
   * @param {boolean} on whether it is muted
   * @returns {Promise<void>} rejected with what captureWords explains
   */
  async mute(label, kind, on) {
    const source = this.#published.get(label)?.source;
    const track = source?.media.getTracks().find((t) => t.kind === kind);
    if (!track || source.muted[kind] === on) return;
    if (source.kind === 'camera' && kind === 'video') {
      if (on) track.stop();
      else {
        const { deviceId } = track.getSettings();
        const again = await captureCamera({ video: deviceId ? { deviceId } : true, audio: false });
        source.muted.video = false;
        return this.replace(label, again.getVideoTracks()[0]);
      }
    }
    source.muted[kind] = on;
    track.enabled = !on;
    this.#changed();
  }

  /**
   * Takes another device for a source, without negotiation.
   *
   * @param {string} label
   * @param {MediaStreamTrack} track takes the place of the source's track of its kind
   * @returns {Promise<void>}
   */
  async replace(label, track) {
    const entry = this.#published.get(label);
    const before = entry?.source.media.getTracks().find(({ kind }) => kind === track.kind);
    if (!before) {
      track.stop();
      throw new TypeError(`"${label}" publishes no ${track.kind}`);
    }
    track.enabled = !entry.source.muted[track.kind];
    const transceiver = entry.transceivers.find(({ sender }) => sender.track === before);
    await transceiver?.sender.replaceTrack(track);
    entry.source.media.removeTrack(before);
    entry.source.media.addTrack(track);
    before.stop();
    this.#endWith(label, track);
    this.#changed();
  }

  /** Ends everything. */
  close() {
    for (const label of [...this.#published.keys()]) this.#remove(label);
    this.#drop();
    this.#changed();
  }

  /** A source ends when its user, or the system, has ended all of its tracks; a muted camera's is only let go. */
  #endWith(label, track) {
    track.addEventListener('ended', () => {
      const source = this.#published.get(label)?.source;
      if (source?.media.getTracks().includes(track) && source.media.getTracks().every((t) => t.readyState === 'ended')) this.stop(label);
    });
  }

  /** Tells the others, by the gateway, of which kinds all is muted. */
  #tell() {
    if (!this.#room.session) return;
    for (const kind of ['audio', 'video']) {
      const sent = this.sources.filter(({ media }) => media.getTracks().some((track) => track.kind === kind));
      const muted = sent.length > 0 && sent.every((source) => source.muted[kind]);
      if (muted === this.#told.has(kind)) continue;
      this.#echoes[kind].push({ on: muted, until: performance.now() + settleWithin });
      setTimeout(() => this.dispatchEvent(new Event('change')), settleWithin);
      if (muted) this.#told.add(kind);
      else this.#told.delete(kind);
      this.#room.mute(this.#room.self.userId, kind, muted);
    }
  }

  #changed() {
    this.#tell();
    this.dispatchEvent(new Event('change'));
  }

  #remove(label) {
    const entry = this.#published.get(label);
    if (!entry) return false;
    this.#published.delete(label);
    for (const track of entry.source.media.getTracks()) track.stop();
    for (const transceiver of entry.transceivers) transceiver.stop();
    return true;
  }

  #drop() {
    clearTimeout(this.#restartTimer);
    this.#restarting = this.#stale = false;
    this.#answer?.({ type: 'gone' });
    const pc = this.#pc;
    this.#pc = null;
    this.#early = [];
    if (pc) {
      pc.onicecandidate = pc.onconnectionstatechange = null;
      pc.close();
    }
    for (const entry of this.#published.values()) entry.transceivers = [];
  }

  /** A session begins, or goes on. */
  #follow({ resumed }) {
    if (!resumed) {
      this.#told.clear();
      this.#tell();
      this.#drop();
      for (const { source } of this.#published.values()) source.stream = '';
      if (this.#published.size) this.#negotiate();
      return;
    }
    const state = this.#pc?.connectionState;
    if (state === 'failed' || state === 'closed') this.#renew();
    else if (state && (this.#stale || (!this.#restarting && (state === 'disconnected' || this.#room.moved)))) this.#restart();
  }

  #connect() {
    const pc = new RTCPeerConnection({ bundlePolicy: 'max-bundle', ...this.#room.configuration });
    pc.onicecandidate = ({ candidate }) => {
      this.#room.send('ice-candidate', { connection: 'publish', candidate: candidate?.candidate ? candidate.toJSON() : null });
    };
    pc.onconnectionstatechange = () => {
      clearTimeout(this.#restartTimer);
      if (pc.connectionState === 'connected') this.#restarting = false;
      if (pc.connectionState === 'disconnected') this.#restartTimer = setTimeout(() => this.#restart(), restartAfter);
      if (pc.connectionState === 'failed' || pc.connectionState === 'closed') this.#renew();
    };
    return pc;
  }

  #restart() {
    if (!this.#pc) return;
    this.#restarting = true;
    this.#pc.restartIce();
    this.#negotiate();
  }

  /** Begins anew where nothing is left of the connection. */
  #renew() {
    this.#drop();
    this.#negotiate();
  }

  /** Brings the connection in line with what is published: one offer after the other. */
  #negotiate() {
    this.#steps = this.#steps.then(() => this.#offer()).catch((err) => {
      console.error('gateway: publish:', err);
      this.dispatchEvent(new CustomEvent('error', { detail: { code: err.code || 'negotiation', message: err.message } }));
    });
  }

  async #offer() {
    if (!this.#room.session || !this.#published.size) return; // joined says when
    const pc = (this.#pc ??= this.#connect());
    for (const { source, transceivers } of this.#published.values()) {
      const sent = new Set(transceivers.map(({ sender }) => sender.track));
      for (const track of source.media.getTracks()) if (!sent.has(track)) transceivers.push(add(pc, track, source));
    }
    await pc.setLocalDescription();
    if (pc !== this.#pc) return;
    const streams = [...this.#published.values()].filter(({ transceivers }) => transceivers.length).map(({ source, transceivers }) => (
      { label: source.label, title: source.title, mids: transceivers.map(({ mid }) => mid) }
    ));
    this.#asked = `publish-${++this.#asks}`;
    const answered = new Promise((resolve) => { this.#answer = resolve; });
    const timer = setTimeout(() => this.#answer?.({ type: 'error', code: 'timeout', message: 'the gateway didn’t answer the offer' }), answerWithin);
    this.#room.send('offer', { requestId: this.#asked, sdp: pc.localDescription.sdp, streams });
    const answer = await answered;
    clearTimeout(timer);
    this.#answer = null;
    if (pc !== this.#pc || answer.type === 'gone') return;
    if (answer.type === 'error') {
      this.#stale = true;
      await pc.setLocalDescription({ type: 'rollback' }).catch(() => {});
      throw Object.assign(new Error(answer.message || answer.code), { code: answer.code });
    }
    await pc.setRemoteDescription({ type: 'answer', sdp: answer.sdp });
    this.#stale = false;
    if (pc.connectionState === 'connected') this.#restarting = false;
    for (const candidate of this.#early.splice(0)) this.#take(candidate);
    for (const { label, name } of answer.streams ?? []) {
      const source = this.#published.get(label)?.source;
      if (source) source.stream = name;
    }
    this.#changed();
  }

  /** @param {RTCIceCandidateInit} [candidate] */
  #take(candidate) {
    this.#pc?.addIceCandidate(candidate).catch(() => {}); // one that doesn't fit is one way less
  }

  /** @param {object} message of the gateway, about the publishing connection */
  #receive(message) {
    switch (message.type) {
      case 'answer':
        if (!message.requestId || message.requestId === this.#asked) this.#answer?.(message);
        break;
      case 'error':
        if (message.requestId === this.#asked) this.#answer?.(message);
        break;
      case 'ice-candidate':
        if (this.#pc?.remoteDescription) this.#take(message.candidate ?? undefined);
        else this.#early.push(message.candidate ?? undefined);
        break;
      case 'unpublished': {
        const entry = [...this.#published.values()].find(({ source }) => source.stream === message.stream);
        if (entry) this.stop(entry.source.label);
        break;
      }
    }
  }
}

/**
 * Adds a track as its kind is sent best: cameras in several sizes, so that each viewer gets one that fits; screens in one that stays
 * sharp.
 *
 * @param {RTCPeerConnection} pc
 * @param {MediaStreamTrack} track
 * @param {Source} source
 * @returns {RTCRtpTransceiver}
 */
function add(pc, track, { kind, media }) {
  const init = { direction: 'sendonly', streams: [media] };
  if (track.kind === 'video') {
    const large = (track.getSettings().width ?? 0) >= simulcastFrom;
    if (kind === 'screen') init.sendEncodings = [{ maxBitrate: 2_500_000, maxFramerate: 15 }];
    else init.sendEncodings = large ? layers.map((layer) => ({ ...layer })) : [{ maxBitrate: 600_000 }];
  }
  const transceiver = pc.addTransceiver(track, init);
  if (track.kind === 'video') {
    // every browser decodes these two, and both can be sent in several sizes
    const rank = ({ mimeType }) => ['video/vp8', 'video/h264', 'video/rtx'].indexOf(mimeType.toLowerCase());
    const codecs = (RTCRtpSender.getCapabilities?.('video')?.codecs ?? []).filter((codec) => rank(codec) >= 0).sort((a, b) => rank(a) - rank(b));
    if (codecs.length) transceiver.setCodecPreferences?.(codecs);
  }
  return transceiver;
}

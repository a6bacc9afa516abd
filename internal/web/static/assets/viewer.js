/**
 * One stream being watched: signaling and the RTCPeerConnection together, kept alive over lost sockets, changed networks and restarted
 * gateways. It draws nothing; <gateway-player> is one user of it.
 *
 * @module
 */
import { Link } from './link.js';
import { align, decodable, receivableCodecs } from './receiver.js';

/** When to try again after a refusal, in milliseconds. Other refusals are retried like a lost link; null is not retried. */
const retryAfter = {
  'not-found': 5_000,
  'too-many-viewers': 5_000,
  'rate-limited': 10_000,
  'codec-unsupported': 15_000,
  'unsupported-version': null,
  unauthorized: null,
  'token-expired': null,
  forbidden: 15_000,
  'room-closed': 5_000,
  'room-locked': 5_000,
  'room-full': 5_000,
};

/**
 * A track as the gateway describes it; see docs/protocol.md.
 *
 * @typedef {{ name: string, kind: 'video'|'audio', codec: string, width?: number, height?: number, fps?: number, bitrate?: number, refused?: string }} Track
 */

/**
 * What came of the last edit of a stream's file.
 *
 * @typedef {{ at: number, ok: boolean, message: string, findings?: string[] }} Reload at: Unix milliseconds
 */

/**
 * A stream as the gateway describes it; see docs/protocol.md.
 *
 * @typedef {{ name: string, title?: string, state: string, reason?: string, placeholder?: boolean, tracks?: Track[], viewers?: number, reload?: Reload }} Stream placeholder:
 * what is seen stands in for the source
 */

/**
 * Which rendition plays, and which one is asked for.
 *
 * @typedef {{ rendition: string, selected: string }} Choice rendition: a name, empty while it is unknown; selected: a name, or "auto"
 */

/**
 * How much of the picture is seen, which tells the gateway how much of it to send.
 *
 * @typedef {{ width: number, height: number, visible: boolean, audible: boolean }} Sight width, height: device pixels of the picture's place
 */

/**
 * Something that the gateway did because of this viewer's network, page or encoder.
 *
 * @typedef {{ at: number, what: string, from: string, to: string, reason: string }} Decision at: Unix milliseconds; what: rendition, bitrate,
 *   framerate, size, pause, resume or estimate; from and to: texts, such as "high" and "low"
 */

/**
 * How the gateway sees this viewer; see docs/protocol.md. What it doesn't know is left out.
 *
 * @typedef {object} Quality
 * @property {number} at Unix milliseconds, by the gateway's clock
 * @property {number} [estimate] bit/s that the network is thought to carry
 * @property {number} [target] bit/s that the encoder was told to make
 * @property {number} [sent] bit/s that were sent
 * @property {string} [rendition]
 * @property {number} [width] pixels
 * @property {number} [height] pixels
 * @property {number} [fps] frames a second
 * @property {number} [loss] 0 to 1
 * @property {number} [roundTrip] milliseconds
 * @property {number} [queue] milliseconds that packets wait in the network
 * @property {Decision[]} decisions those since the last message, oldest first
 * @property {Record<string, { p50: number, p95: number, max: number }>} [latency] milliseconds by stage, in the order that a frame passes them
 */

/**
 * What a viewer is doing.
 *
 * - "connecting": the socket opens and the stream is joined
 * - "joined": the gateway has let the viewer in, media is being negotiated or the stream isn't there yet
 * - "connected": media can flow
 * - "interrupted": the media path broke, ICE restarts
 * - "reconnecting": the link is lost; it is tried again at retryAt
 * - "refused": the gateway said no (code, message); it is tried again at retryAt, or never when that is 0
 * - "closed"
 *
 * @typedef {{ state: string, code: string, message: string, retryAt: number }} ViewerState retryAt is on the clock of performance.now()
 */

/**
 * Watches one stream.
 *
 * Its steps are marks in the browser's performance timeline, gateway:connecting, open, joined, offer, answer, connected, first-frame.
 *
 * Events: `state` (detail: ViewerState), `stream` (detail: Stream), `media` (detail: MediaStream, a new one for each session and also
 * when its tracks changed), `rendition` (detail: Choice), `quality` (detail: Quality, while observed), `observe` (detail: boolean, whether
 * the gateway is asked for it; also when a session begins and ends), `expiring` (detail: {expires}: Unix milliseconds, see renew), `error`
 * (detail: {code, message, traceId, fatal}).
 */
export class Viewer extends EventTarget {
  #link;
  #signaling;
  #receiver;
  #room;
  #access = { token: '' };
  #media = new MediaStream();
  #session = '';
  /** @type {Stream?} */
  #stream = null;
  #startedAt = 0;
  #reported = false;
  /** Whether the picture was out of sight since the session began, or the stream absent before its first offer: neither is our delay. */
  #hidden = false;
  #waited = false;
  /** @type {{ video: string[], audio: string[] }|undefined} */
  #codecs;
  /** @type {Choice} */
  #choice;
  /** What the gateway was told last in a join, what it has confirmed, and the requestId of a select that it hasn't answered. */
  #joinedWith = 'auto';
  #confirmed = 'auto';
  #asked = '';
  #asks = 0;
  /** @type {Sight?} */
  #sight = null;
  #observed = false;

  /**
   * @param {object} options
   * @param {string} options.url the gateway's WebSocket, such as "ws://box:8080/ws"
   * @param {string} options.room the room; every stream is a room of its own name
   * @param {string} [options.token] what the gateway asks for where it is closed
   * @param {string} [options.rendition] name of the rendition to begin with; otherwise the gateway chooses
   * @param {RTCIceTransportPolicy} [options.iceTransportPolicy] "relay" uses TURN only; so does a gateway that says so
   * @param {number} [options.startedAt] from when the first frame is timed, on the clock of performance.now(); otherwise from open
   */
  constructor({ url, room, token, rendition = 'auto', iceTransportPolicy = 'all', startedAt }) {
    super();
    this.#room = room;
    this.#access.token = token;
    this.#choice = { rendition: '', selected: rendition };
    this.#startedAt = startedAt ?? -1;
    this.#link = new Link({ url, join: () => this.#join(), iceTransportPolicy, retryAfter });
    this.#signaling = this.#link.signaling;
    this.#receiver = this.#link.receiver;
    this.#link.addEventListener('state', ({ detail }) => this.dispatchEvent(new CustomEvent('state', { detail })));
    this.#link.addEventListener('away', () => this.#drop());
    this.#link.addEventListener('back', () => {
      this.#startedAt = performance.now();
      this.#renew();
    });
    this.#receiver.addEventListener('tracks', () => this.#gather());
    this.#receiver.addEventListener('refused', (event) => this.#cannot(event.detail));
    this.#receiver.addEventListener('lost', (event) => this.#fail(event.detail));
    this.#signaling.addEventListener('state', ({ detail: { state } }) => {
      if (state === 'connecting' || state === 'open') performance.mark(`gateway:${state}`);
    });
    this.#signaling.addEventListener('message', (event) => this.#receive(event.detail));
  }

  #join() {
    this.#joinedWith = this.#choice.selected;
    return {
      roomId: this.#room,
      version: 1,
      role: 'viewer', // it only watches, whatever it may
      codecs: (this.#codecs ??= receivableCodecs()),
      ...(this.#joinedWith === 'auto' ? {} : { rendition: this.#joinedWith }),
      ...(this.#access.token ? { token: this.#access.token } : {}),
    };
  }

  /** The connection of the running session; null before open and after close. */
  get peerConnection() {
    return this.#receiver.peerConnection;
  }

  /** The stream as the gateway last described it, or null. */
  get stream() {
    return this.#stream;
  }

  /** The room that is watched. */
  get room() {
    return this.#room;
  }

  /** What the viewer is doing. @returns {ViewerState} */
  get status() {
    return this.#link.status;
  }

  /** Which rendition plays, and which one is asked for. @returns {Choice} */
  get choice() {
    return this.#choice;
  }

  /** The renditions that this browser can decode, best first; one that is `refused` can’t be had. @returns {Track[]} */
  get renditions() {
    return decodable(this.#stream?.tracks, (this.#codecs ??= receivableCodecs()).video);
  }

  /**
   * Asks for a rendition; it is also asked for in later sessions. What comes of it is told by `rendition`, and by `error` when the gateway
   * refuses: then all stays as it was.
   *
   * @param {string} rendition a name, or "auto": the gateway chooses
   */
  select(rendition) {
    const asked = `select-${++this.#asks}`;
    this.#asked = this.#session && this.#signaling.send('select', { rendition, requestId: asked }) ? asked : ''; // otherwise it joins with it
    this.#choose({ selected: rendition });
  }

  /**
   * Tells the gateway how much of the picture is seen, in this session and in later ones: it sends no more than that is worth.
   *
   * @param {Sight} sight
   */
  view(sight) {
    const before = this.#sight;
    if (before && Object.keys(sight).every((key) => sight[key] === before[key])) return;
    this.#sight = { ...sight };
    this.#hide();
    this.#tell();
  }

  /**
   * Asks for `quality` once a second and with each decision, in this session and in later ones.
   *
   * @param {boolean} on
   */
  observe(on) {
    if (on === this.#observed) return;
    this.#observed = on;
    if (!this.#session) return;
    this.#signaling.send('observe', { on });
    this.dispatchEvent(new CustomEvent('observe', { detail: on }));
  }

  /** Whether the gateway is asked for `quality` now. */
  get observing() {
    return this.#observed && Boolean(this.#session);
  }

  /**
   * Tells the gateway what was measured here; docs/protocol.md has the fields.
   *
   * @param {object} fields
   * @returns {boolean} whether it was sent
   */
  report(fields) {
    return Boolean(this.#session) && this.#signaling.send('report', fields);
  }

  #tell() {
    if (this.#session && this.#sight) this.#signaling.send('view', this.#sight);
  }

  /** @param {Partial<Choice>} changes */
  #choose(changes) {
    const before = this.#choice;
    const now = { ...before, ...changes };
    if (now.rendition === before.rendition && now.selected === before.selected) return;
    this.#choice = now;
    this.dispatchEvent(new CustomEvent('rendition', { detail: now }));
  }

  /** Begins to watch. */
  open() {
    if (this.#startedAt < 0) this.#startedAt = performance.now();
    document.addEventListener('visibilitychange', this.#hide);
    this.#link.open(); // the socket opens while the connection is being made
    this.#renew();
  }

  /** Stops watching and frees the connection. */
  close() {
    document.removeEventListener('visibilitychange', this.#hide);
    this.#link.close();
    this.#drop();
    this.#link.enter('closed');
  }

  /** Tries again at once, if the viewer waits to do so, or was refused for want of a token. */
  retryNow() {
    if (this.status.state === 'refused' && this.#signaling.state === 'closed') this.#signaling.open();
    else this.#signaling.retryNow();
  }

  /** Stays by another token, or without one by what the browser is signed in with now: see Signaling.renew. @param {string} [token] */
  async renew(token) {
    if (this.status.state !== 'refused') return this.#signaling.renew(this.#access, token);
    if (token) this.#access.token = token;
    this.retryNow();
    return Infinity;
  }

  /**
   * Tells the gateway that the first frame of this session was rendered: once a session, and not where the page was hidden meanwhile,
   * because a browser then draws nothing, nor where it is a placeholder.
   *
   * @param {number} now on the clock of performance.now()
   * @returns {number} milliseconds from the beginning to the first frame
   */
  firstFrame(now) {
    const ms = Math.max(0, now - this.#startedAt);
    performance.mark('gateway:first-frame', { startTime: now });
    if (!this.#reported && !this.#hidden && !this.#stream?.placeholder) this.report({ firstFrameMs: Math.round(ms * 10) / 10 });
    this.#reported = true;
    return ms;
  }

  #receive(message) {
    if (message.session && this.#session && message.session !== this.#session && message.type !== 'joined') return;
    if (message.type === 'joined' || message.type === 'offer') performance.mark(`gateway:${message.type}`);
    switch (message.type) {
      case 'joined':
        this.#begin(message);
        break;
      case 'stream':
        this.#describe(message.stream);
        break;
      case 'rendition':
        this.#switched(message);
        break;
      case 'quality':
        this.dispatchEvent(new CustomEvent('quality', { detail: { ...message, decisions: message.decisions ?? [] } }));
        break;
      case 'offer':
        if (this.#waited && !this.peerConnection?.remoteDescription) this.#startedAt = performance.now();
        this.#receiver.offer(message.sdp, message.tracks);
        break;
      case 'ice-candidate':
        this.#receiver.candidate(message.candidate);
        break;
      case 'token-expiring':
        this.dispatchEvent(new CustomEvent('expiring', { detail: { expires: message.expires } }));
        break;
      case 'left':
        this.#link.lose(message.reason || 'left');
        break;
      case 'error':
        this.#refuse(message);
        break;
    }
  }

  #switched({ requestId = '', rendition = '', selected = 'auto' }) {
    this.#confirmed = selected;
    if (requestId === this.#asked) this.#asked = '';
    this.#choose(this.#asked ? { rendition } : { rendition, selected }); // the answer to a newer wish is still to come
  }

  #refuse({ code = 'internal', message = '', traceId = '', fatal = false, requestId = '' }) {
    if (requestId && requestId === this.#asked) {
      this.#asked = '';
      this.#choose({ selected: this.#confirmed });
    }
    this.dispatchEvent(new CustomEvent('error', { detail: { code, message, traceId, fatal } }));
    if (!fatal) return;
    if (retryAfter[code] === null) {
      this.#signaling.close();
      this.#link.enter('refused', { code, message });
      return;
    }
    this.#link.lose(code, message, retryAfter[code]);
  }

  #begin(joined) {
    const { session, resumed, stream } = joined;
    if (resumed) {
      this.#session = session;
      this.#describe(stream);
      this.#link.enter(this.#receiver.connected ? 'connected' : 'joined');
      this.#receiver.resume(this.#signaling.moved);
      return;
    }
    if (this.#session) {
      // media of the old session may have gone on without its socket until here
      this.#startedAt = performance.now();
      this.#renew();
    }
    this.#session = session;
    this.#tell();
    if (this.#observed) {
      this.#signaling.send('observe', { on: true });
      this.dispatchEvent(new CustomEvent('observe', { detail: true }));
    }
    this.#receiver.begin(joined);
    this.#link.enter('joined');
    this.#describe(stream);
    this.#asked = '';
    this.#confirmed = 'auto';
    this.#choose({ rendition: '' });
    if (this.#choice.selected !== this.#joinedWith) this.select(this.#choice.selected); // chosen while the socket opened
  }

  #describe(stream) {
    if (!stream || (this.#stream && stream.name !== this.#stream.name)) return; // others of the room
    this.#stream = stream;
    if (stream.state === 'absent') this.#waited = true;
    this.dispatchEvent(new CustomEvent('stream', { detail: stream }));
  }

  /** Makes the connection of the next session. */
  #renew() {
    this.#drop();
    this.#media = new MediaStream();
    this.#receiver.renew();
  }

  #drop() {
    const observed = this.observing;
    this.#session = '';
    if (observed) this.dispatchEvent(new CustomEvent('observe', { detail: false }));
    this.#reported = this.#hidden = false;
    this.#hide();
    this.#waited = false;
    this.#receiver.close();
  }

  /** Negotiation or the way of the media failed for good. */
  #fail({ code, message }) {
    if (code === 'negotiation') this.dispatchEvent(new CustomEvent('error', { detail: { code, message, traceId: '', fatal: false } }));
    this.#link.lose(code, message);
  }

  /** @param {{ kind: string }[]} refused sections of the offer */
  #cannot(refused) {
    if (!refused.some(({ kind }) => kind === 'video')) return;
    const codec = this.#stream?.tracks?.find((track) => track.kind === 'video')?.codec ?? 'its codec';
    this.#link.lose('codec-unsupported', `this browser can't decode ${codec}`, retryAfter['codec-unsupported']);
  }

  /** Brings the MediaStream in line with what is received, and tells when that changed. */
  #gather() {
    const tracks = this.#receiver.incoming.map(({ track }) => track);
    if (align(this.#media, tracks)) this.dispatchEvent(new CustomEvent('media', { detail: this.#media }));
  }

  #hide = () => {
    this.#hidden ||= document.hidden || this.#sight?.visible === false;
  };
}

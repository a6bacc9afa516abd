/**
 * A room: who is there, which streams it has, their media, and what may be done to others, over one conversation and one receiving
 * connection. It draws nothing; the gateway's room page is one user of it. docs/protocol.md names the messages.
 *
 * @module
 */
import { DataChannels } from './data.js';
import { Link } from './link.js';
import { align, receivableCodecs } from './receiver.js';

/** When to try again after a refusal, in milliseconds. Other refusals are retried like a lost link; null is not retried. */
const retryAfter = {
  'unsupported-version': null,
  unauthorized: null,
  'token-expired': null,
  forbidden: null,
  'not-found': 10_000,
  'room-closed': null,
  'room-locked': 5_000,
  'room-full': 5_000,
  'too-many-viewers': 5_000,
  'rate-limited': 10_000,
};
/** After these nobody comes back by himself. */
const final = new Set(['removed', 'room-closed', 'leave']);

/**
 * Somebody in the room.
 *
 * @typedef {{ userId: string, name?: string, role: string, streams?: string[], muted?: ('audio'|'video')[], absent?: boolean }} Participant
 *   absent: the connection is lost, and may come back
 */

/** @typedef {import('./viewer.js').Stream & { publisher?: string, label?: string }} RoomStream publisher: the userId, of what a participant publishes */

/** A name as long as the protocol takes it: 64 bytes of UTF-8. @param {string} name */
function shortened(name) {
  let short = name.trim();
  while (new TextEncoder().encode(short).length > 64) short = [...short].slice(0, -1).join('');
  return short;
}

/**
 * A place in a room, kept over lost sockets and changed networks.
 *
 * Events: `state` (detail: ViewerState; "left" with the reason as code is one more state), `joined` (detail: the gateway's message; also
 * when a session is taken up again, then `resumed`, and when a host has moved this participant, then its type is `moved`), `room`,
 * `participants`, `streams` (what is known of them has changed), `media` (detail: {stream, media}), `rendition` and `quality` (detail: the
 * gateway's message, with `stream`), `muted` (detail: {kind, on}), `message` (detail: {userId, data, target}), `relay` (detail: an offer,
 * answer or ice-candidate of another participant), `refused` (detail: {stream, code, message}), `expiring` (detail: {expires}: Unix
 * milliseconds, see renew), `error` (detail: {code, message, fatal, requestId, traceId}), `publish` (detail: a message about the publishing
 * connection), `closed` (nobody comes back by himself: what is captured for the room ends).
 */
export class Room extends EventTarget {
  #link;
  #signaling;
  #receiver;
  #options;
  #session = '';
  #self = { userId: '', name: '', role: '', can: new Set() };
  #room = { roomId: '', title: '', state: '', locked: false };
  /** @type {Map<string, Participant>} */
  #participants = new Map();
  /** @type {Map<string, RoomStream>} */
  #streams = new Map();
  /** What is to be watched: the rendition, and how much of it is seen. @type {Map<string, { rendition: string, view: import('./viewer.js').Sight? }>} */
  #wanted = new Map();
  /** What the gateway was asked to send. @type {Set<string>} */
  #watched = new Set();
  /** @type {Map<string, MediaStream>} */
  #media = new Map();
  /** What requests are about. @type {Map<string, string>} */
  #asked = new Map();
  #asks = 0;
  #configuration = {};

  /**
   * @param {object} options
   * @param {string} options.url the gateway's WebSocket, such as "wss://box/ws"
   * @param {string} options.room the room's name
   * @param {string} [options.name] how the others see this participant
   * @param {string} [options.token] where no cookie says who it is
   * @param {RTCIceTransportPolicy} [options.iceTransportPolicy] "relay" uses TURN only
   */
  constructor({ url, room, name = '', token, iceTransportPolicy = 'all' }) {
    super();
    this.#options = { room, name: shortened(name), token };
    this.#room.roomId = room;
    this.#configuration = { iceTransportPolicy };
    const codecs = receivableCodecs();
    const join = () => ({
      roomId: this.#room.roomId, // it may have been moved to another
      version: 1,
      create: true, // if it isn't there, and if that is granted
      codecs,
      ...(this.#options.name ? { name: this.#options.name } : {}),
      ...(this.#options.token ? { token: this.#options.token } : {}),
    });
    this.#link = new Link({ url, join, iceTransportPolicy, retryAfter });
    this.#signaling = this.#link.signaling;
    this.#receiver = this.#link.receiver;
    this.#link.addEventListener('state', ({ detail }) => this.#tell('state', detail));
    this.#link.addEventListener('away', () => this.#receiver.close());
    this.#link.addEventListener('back', () => this.#receiver.renew());
    /** Messages of applications: see DataChannels. */
    this.data = new DataChannels(this.#receiver, () => this.send('open-data', { requestId: 'open-data' }));
    this.#receiver.addEventListener('tracks', () => this.#gather());
    this.#receiver.addEventListener('lost', ({ detail }) => this.#link.lose(detail.code, detail.message));
    this.#receiver.addEventListener('refused', ({ detail }) => this.#cannot(detail));
    this.#signaling.addEventListener('message', (event) => this.#receive(event.detail));
  }

  /** What the connection is doing, as of a Viewer. @returns {import('./viewer.js').ViewerState} */
  get status() {
    return this.#link.status;
  }

  /** Who this is: userId, name, role, and the actions that are granted. @returns {{ userId: string, name: string, role: string, can: Set<string> }} */
  get self() {
    return this.#self;
  }

  /** How the others are to see this participant, from the next session on. @param {string} name */
  set name(name) {
    this.#options.name = shortened(name);
  }

  /** The room: roomId, title, state, locked. */
  get room() {
    return this.#room;
  }

  /** Who is there, by userId, where that may be seen; this participant too. @returns {Map<string, Participant>} */
  get participants() {
    return this.#participants;
  }

  /** What can be watched, by name. @returns {Map<string, RoomStream>} */
  get streams() {
    return this.#streams;
  }

  /** The secret of the running session; empty before it is joined. */
  get session() {
    return this.#session;
  }

  /** Whether the network has changed since the gateway was last heard. */
  get moved() {
    return this.#signaling.moved;
  }

  /** What a connection to the gateway needs: iceServers, iceTransportPolicy. @returns {RTCConfiguration} */
  get configuration() {
    return this.#configuration;
  }

  /** The connection on which the gateway sends. */
  get peerConnection() {
    return this.#receiver.peerConnection;
  }

  /** The media of a stream that is watched: one object for as long as it is. @param {string} stream @returns {MediaStream} */
  media(stream) {
    if (!this.#media.has(stream)) this.#media.set(stream, new MediaStream());
    return this.#media.get(stream);
  }

  /** Joins, and stays. */
  open() {
    this.#link.open();
    this.#receiver.renew();
  }

  /** Leaves for good. */
  leave() {
    this.#link.close();
    this.#end('leave');
  }

  /** Tries again at once, if it waits to do so or was refused. @param {string} [token] a new one */
  retryNow(token) {
    if (token) this.#options.token = token;
    if (this.#signaling.state === 'closed') this.open();
    else this.#signaling.retryNow();
  }

  /** Stays by another token, or without one by what the browser is signed in with now: see Signaling.renew. @param {string} [token] */
  renew(token) {
    return this.#signaling.renew(this.#options, token);
  }

  /**
   * Watches a stream, now and in later sessions.
   *
   * @param {string} stream
   * @param {{ rendition?: string, view?: import('./viewer.js').Sight }} [options]
   */
  watch(stream, { rendition = 'auto', view = null } = {}) {
    if (this.#wanted.has(stream)) return;
    this.#wanted.set(stream, { rendition, view });
    this.#request(stream);
  }

  /** Stops watching a stream. @param {string} stream */
  unwatch(stream) {
    this.#wanted.delete(stream);
    if (this.#watched.delete(stream)) this.#ask('unwatch', stream);
    this.#media.delete(stream);
  }

  /** Tells how much of a stream is seen, in this session and in later ones. @param {string} stream @param {import('./viewer.js').Sight} view */
  view(stream, view) {
    const wanted = this.#wanted.get(stream);
    if (!wanted) return;
    wanted.view = { ...view };
    if (this.#watched.has(stream)) this.send('view', { stream, ...view });
  }

  /** Asks for a rendition of a stream. @param {string} stream @param {string} rendition a name or "auto" */
  select(stream, rendition) {
    const wanted = this.#wanted.get(stream);
    if (!wanted) return;
    wanted.rendition = rendition;
    if (this.#watched.has(stream)) this.#ask('select', stream, { rendition });
  }

  /** Sends any JSON to a participant, or to all who see each other. @param {unknown} data @param {string} [target] a userId */
  say(data, target) {
    return this.send('message', { data, ...(target ? { target } : {}) });
  }

  /** Silences a participant's sound or picture for all, or lifts that. @param {string} target @param {'audio'|'video'} kind @param {boolean} on */
  mute(target, kind, on) {
    return this.send('mute', { target, kind, on });
  }

  /** Sends a participant out. @param {string} target */
  remove(target) {
    return this.send('remove', { target });
  }

  /** Sends a participant to another room. @param {string} target @param {string} room */
  move(target, room) {
    return this.send('move', { target, to: room });
  }

  /** Gives a participant a role, none above one's own. @param {string} target @param {string} role */
  setRole(target, role) {
    return this.send('set-role', { target, role });
  }

  /** Lets nobody else in, or lets them in again. @param {boolean} on */
  lock(on) {
    return this.send('lock', { on });
  }

  /** Sends everybody out and closes the room. */
  closeRoom() {
    return this.send('close-room');
  }

  /** Sends a message as it is. @param {string} type @param {object} [fields] @returns {boolean} whether it was sent, or will be */
  send(type, fields) {
    return Boolean(this.#session) && this.#signaling.send(type, fields);
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  #receive(message) {
    if (message.userId && message.userId !== this.#self.userId && ['offer', 'answer', 'ice-candidate'].includes(message.type)) return this.#tell('relay', message);
    if (message.connection === 'publish' || message.type === 'unpublished') return this.#tell('publish', message);
    switch (message.type) {
      case 'joined':
      case 'moved':
        return this.#begin(message);
      case 'offer':
        return this.#receiver.offer(message.sdp, message.tracks);
      case 'ice-candidate':
        return this.#receiver.candidate(message.candidate);
      case 'participant-joined':
      case 'participant-changed':
        this.#participants.set(message.participant.userId, message.participant);
        if (message.participant.userId === this.#self.userId) this.#become(message.participant, message.can);
        return this.#tell('participants');
      case 'participant-left':
        this.#participants.delete(message.participant.userId);
        return this.#tell('participants');
      case 'presence': // the same for many at once
        for (const participant of message.here) {
          this.#participants.set(participant.userId, participant);
          if (participant.userId === this.#self.userId) this.#become(participant);
        }
        for (const userId of message.gone) this.#participants.delete(userId);
        return this.#tell('participants');
      case 'stream-started':
      case 'stream':
        this.#describe(message.stream);
        return this.#tell('streams');
      case 'stream-ended':
        this.#forget(message.stream.name ?? message.stream);
        return this.#tell('streams');
      case 'room':
        this.#room = { ...this.#room, ...message.room };
        return this.#tell('room');
      case 'unwatched':
        return this.#stopped(message);
      case 'muted':
        this.#silence(message);
        return this.#tell('muted', message);
      case 'token-expiring':
        return this.#tell('expiring', { expires: message.expires });
      case 'rendition':
      case 'quality':
      case 'message':
        return this.#tell(message.type, message);
      case 'left':
        if (!final.has(message.reason)) return this.#link.lose(message.reason || 'left');
        this.#signaling.close();
        return this.#end(message.reason);
      case 'error':
        return this.#refuse(message);
    }
  }

  #begin(joined) {
    const { session, userId, name, role, can, room, stream, streams, participants, iceServers, iceTransportPolicy, resumed } = joined;
    const moved = joined.type === 'moved';
    if (this.#session && !resumed && !moved) this.#receiver.renew();
    if (session) this.#session = session;
    this.#self = { userId: userId ?? this.#self.userId, name: name ?? this.#options.name, role: role ?? '', can: new Set(can ?? ['watch']) };
    this.#room = { roomId: joined.roomId, title: '', state: 'active', locked: false, ...room };
    const list = streams ?? (stream ? [stream] : []);
    this.#streams = new Map(list.map((s) => [s.name, s]));
    this.#participants = new Map((participants ?? []).map((p) => [p.userId, p]));
    const me = this.#participants.get(this.#self.userId);
    if (me) this.#become(me);
    if (moved) this.#wanted.clear();
    if (!resumed) {
      this.#watched = new Set(stream?.name ? [stream.name] : []);
      if (!moved) this.#receiver.begin(joined);
      if (iceServers?.length) this.#configuration.iceServers = iceServers;
      if (iceTransportPolicy === 'relay') this.#configuration.iceTransportPolicy = 'relay';
    }
    this.#link.enter(this.#receiver.connected ? 'connected' : 'joined');
    if (resumed) this.#receiver.resume(this.#signaling.moved);
    if (!resumed && !moved) this.data.begin();
    this.#tell('joined', joined);
    for (const [name, { view, rendition }] of this.#wanted) {
      if (!resumed && this.#watched.has(name)) { // by the join itself
        if (view) this.send('view', { stream: name, ...view });
        if (rendition !== 'auto') this.#ask('select', name, { rendition });
      } else this.#request(name);
    }
    for (const type of ['room', 'participants', 'streams']) this.#tell(type);
    this.#gather();
  }

  /** The gateway sends a stream no more: because it was asked to, or because it can't. */
  #stopped({ stream, requestId, reason = '', message = '' }) {
    if (requestId) return;
    this.#watched.delete(stream);
    if (reason !== 'stream-closed') this.#tell('refused', { stream, code: reason, message: message || reason });
  }

  /** What this participant sends of a kind isn't passed on, or is again. */
  #silence({ kind, on }) {
    const me = this.#participants.get(this.#self.userId);
    if (!me) return;
    me.muted = [...(me.muted ?? []).filter((k) => k !== kind), ...(on ? [kind] : [])];
    this.#tell('participants');
  }

  #become({ name, role }, can) {
    this.#self = { ...this.#self, name: name || this.#self.name, role: role || this.#self.role, can: can ? new Set(can) : this.#self.can };
  }

  #describe(stream) {
    this.#streams.set(stream.name, { ...this.#streams.get(stream.name), ...stream });
    if (this.#wanted.has(stream.name)) this.#request(stream.name);
  }

  #forget(name) {
    this.#streams.delete(name);
    this.#watched.delete(name);
    this.#wanted.delete(name);
    this.#media.delete(name);
  }

  /** Asks for a stream that is wanted and there, once a session. */
  #request(name) {
    const wanted = this.#wanted.get(name);
    if (!wanted || !this.#session || !this.#streams.has(name) || this.#watched.has(name)) return;
    this.#watched.add(name);
    this.#ask('watch', name, { ...(wanted.rendition === 'auto' ? {} : { rendition: wanted.rendition }), ...(wanted.view ? { view: wanted.view } : {}) });
  }

  /** Sends a message about a stream, so that a refusal of it is known to be about that. */
  #ask(type, stream, fields = {}) {
    const requestId = `${type}-${++this.#asks}`;
    this.#asked.set(requestId, stream);
    if (this.#asked.size > 100) this.#asked.delete(this.#asked.keys().next().value);
    this.send(type, { requestId, stream, ...fields });
  }

  #refuse({ code = 'internal', message = '', traceId = '', fatal = false, requestId = '' }) {
    if (requestId.startsWith('publish-')) this.#tell('publish', { type: 'error', code, message, requestId });
    const stream = this.#asked.get(requestId);
    if (stream && requestId.startsWith('watch-')) this.#watched.delete(stream);
    if (stream) this.#tell('refused', { stream, code, message });
    this.#tell('error', { code, message, traceId, fatal, requestId });
    if (!fatal) return;
    if (retryAfter[code] !== null) return this.#link.lose(code, message, retryAfter[code]);
    this.#signaling.close();
    this.#receiver.close();
    this.#session = '';
    this.#link.enter('refused', { code, message });
    this.#tell('closed');
  }

  /** @param {import('./receiver.js').mediaSections} refused sections that this browser can't decode */
  #cannot(refused) {
    for (const { stream, kind } of refused) {
      if (kind === 'video') this.#tell('refused', { stream: this.#named(stream, kind), code: 'codec-unsupported', message: 'this browser can’t decode it' });
    }
  }

  /** The stream that an msid names: its own name, and with "-audio" behind it where the sound isn't in step with the picture. */
  #named(msid, kind) {
    if (this.#streams.has(msid) || kind !== 'audio') return msid;
    return msid.replace(/-audio$/, '');
  }

  /** Brings the streams' media in line with what comes, and tells which have changed. */
  #gather() {
    const tracks = new Map();
    for (const { track, stream } of this.#receiver.incoming) {
      const name = this.#named(stream, track.kind);
      tracks.set(name, [...(tracks.get(name) ?? []), track]);
    }
    for (const name of new Set([...tracks.keys(), ...this.#media.keys()])) {
      const media = this.media(name);
      if (align(media, tracks.get(name) ?? [])) this.#tell('media', { stream: name, media });
    }
  }

  #end(reason) {
    this.#receiver.close();
    this.#session = '';
    this.#streams = new Map();
    this.#participants = new Map();
    this.#watched.clear();
    this.#link.enter('left', { code: reason });
    this.#tell('closed');
  }
}

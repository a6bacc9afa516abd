/**
 * <gateway-player src="NAME or /watch/NAME or https://box/watch/NAME">: a live stream in any page. docs/player.md describes it.
 *
 * @module
 */
import { Frames } from './latency.js';
import { Picture } from './picture.js';
import { View } from './player-view.js';
import { style } from './player-style.js';
import { Sight } from './sight.js';
import { Meter } from './stats.js';
import { Viewer } from './viewer.js';
import * as words from './words.js';

/** How long the controls stay without a move, and how long the button for the sound stays after them. */
const idleAfter = 3_000;
const callFor = 12_000;
/** How long frames may be missing before somebody is told. */
const frozenAfter = 2_000;
/** How long media may come in without becoming a picture. */
const decodeWithin = 5_000;
/** How long a word about something that was refused stays. */
const hintFor = 6_000;

/** The gateway that this module was loaded from; the page's own address for a copy of it elsewhere. */
const home = new URL(import.meta.url.includes('/assets/') ? import.meta.url.replace(/assets\/[^]*$/, '') : document.baseURI);

/**
 * What a src means.
 *
 * @param {string} src a stream's name or the address of its page
 * @returns {{ url: string, room: string, host: string }} the WebSocket, the room, the gateway's host and port
 * @throws {TypeError} when it names no stream
 */
export function resolveSource(src) {
  const address = /[/:]/.test(src) ? new URL(src, home) : new URL(`watch/${encodeURIComponent(src)}`, home);
  const [, prefix, room] = /^(.*)\/watch\/([^/]+)\/?$/.exec(address.pathname) ?? [];
  if (!room) throw new TypeError(`src "${src}" names no stream`);
  const scheme = /^(https|wss):$/.test(address.protocol) ? 'wss' : 'ws';
  return { url: `${scheme}://${address.host}${prefix}/ws`, room: decodeURIComponent(room), host: address.host };
}

/**
 * The element. Attributes: src, token, rendition, muted, controls, stats, ice-transport-policy.
 *
 * Events: `playing` (detail: {firstFrameMs}), `state` (detail: {state, title, detail}), `stream` (detail: Stream), `rendition` (detail:
 * Choice), `expiring` (detail: {expires}: Unix milliseconds, see renew), `error` (detail: {code, message, traceId, fatal}), `stats` (detail:
 * Stats, once a second), `quality` (detail: Quality, once a second from when the numbers are first shown).
 */
export class GatewayPlayer extends HTMLElement {
  static observedAttributes = ['src', 'token', 'rendition', 'muted', 'stats', 'ice-transport-policy'];

  /** From when the first frame is timed, on the clock of performance.now(); a page that is only a player says 0. @type {number|undefined} */
  startedAt;

  #view = new View();
  #picture = new Picture(this.#view, () => this.peerConnection?.connectionState === 'connected');
  #sight = new Sight(this.#view.video, (sight) => this.#see(sight));
  /** @type {Viewer?} */
  #viewer = null;
  #host = '';
  /** @type {Meter?} */
  #meter = null;
  /** @type {import('./stats.js').Stats?} */
  #stats = null;
  /** @type {import('./viewer.js').Quality?} */
  #quality = null;
  #state = 'closed';
  #title = '';
  /** Whether the picture is in sight, as the gateway was told last. */
  #seen = true;
  #firstFrame = null;
  /** @type {words.Words?} said over the running picture for a while */
  #hint = null;
  #hintTimer = 0;
  #idleTimer = 0;
  #callUntil = 0;
  #tick = 0;

  constructor() {
    super();
    const root = this.attachShadow({ mode: 'open' });
    root.adoptedStyleSheets = [style];
    root.append(this.#view.surface);
    this.#listen();
  }

  /** The last reading, or null. @returns {import('./stats.js').Stats?} */
  get stats() {
    return this.#stats;
  }

  /** How the gateway saw this viewer last, or null before the numbers were shown. @returns {import('./viewer.js').Quality?} */
  get quality() {
    return this.#quality;
  }

  /** The connection of the running session, or null. @returns {RTCPeerConnection?} */
  get peerConnection() {
    return this.#viewer?.peerConnection ?? null;
  }

  /** The video element inside, to read pixels from. @returns {HTMLVideoElement} */
  get video() {
    return this.#view.video;
  }

  /** The stream as the gateway last described it, or null. @returns {import('./viewer.js').Stream?} */
  get stream() {
    return this.#viewer?.stream ?? null;
  }

  /** The rendition that is asked for, a name or "auto"; it is the attribute of that name. */
  get rendition() {
    return this.getAttribute('rendition') || 'auto';
  }

  set rendition(name) {
    if (name && name !== 'auto') this.setAttribute('rendition', name);
    else this.removeAttribute('rendition');
  }

  /**
   * The renditions that this browser can decode, best first; `playing` is true of the one that plays now.
   *
   * @returns {(import('./viewer.js').Track & { playing: boolean })[]}
   */
  get renditions() {
    const playing = this.#viewer?.choice.rendition;
    return (this.#viewer?.renditions ?? []).map((track) => ({ ...track, playing: track.name === playing }));
  }

  /** One of closed, connecting, waiting, playing, frozen, reconnecting, refused, blocked. */
  get state() {
    return this.#state;
  }

  /** Whether the sound is off now; the attribute only says how it starts. */
  get muted() {
    return this.#view.video.muted;
  }

  set muted(muted) {
    this.#view.video.muted = muted;
    if (!muted) this.#picture.play();
  }

  connectedCallback() {
    this.#view.video.muted = this.hasAttribute('muted');
    this.#open();
    this.#sight.start();
    this.#wake();
  }

  disconnectedCallback() {
    this.#close();
    this.#sight.stop();
    clearTimeout(this.#idleTimer);
  }

  attributeChangedCallback(name, before, after) {
    if (before === after) return;
    if (name === 'stats') this.#showStats(after !== null);
    else if (!this.isConnected) return;
    else if (name === 'muted') this.#view.video.muted = after !== null;
    else if (name === 'rendition') this.#select();
    else if (name === 'token' && after && this.#viewer) this.#viewer.renew(after).catch(() => {}); // the error is told by its event
    else if (this.#viewer || name === 'src') this.#open();
  }

  /** Goes on by what the browser is signed in with now, as the access is about to end; the attribute `token` does so by another token. @returns {Promise<number>} as of Viewer.renew */
  async renew() {
    return this.#viewer?.renew();
  }

  /** Tries again at once, if it waits to do so or was refused. */
  retryNow() {
    this.#viewer?.retryNow();
  }

  /** Shows the player's picture on the whole screen, or ends that. */
  async toggleFullscreen() {
    if (this.matches(':fullscreen')) return document.exitFullscreen();
    if (this.requestFullscreen) return this.requestFullscreen();
    this.#view.video.webkitEnterFullscreen?.(); // iPhones know it for videos only
  }

  /** Shows the picture in a window of its own, or ends that. */
  async togglePictureInPicture() {
    if (document.pictureInPictureElement) return document.exitPictureInPicture();
    return this.#view.video.requestPictureInPicture?.();
  }

  /**
   * Does what a key means: m, f, p, q, s, ?. The player listens for keys itself while the focus is in it; a page that is all player passes
   * every key on.
   *
   * @param {KeyboardEvent} event
   */
  handleKey(event) {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || !this.hasAttribute('controls')) return;
    if (this.#view.dialog.open || event.composedPath()[0] === this.#view.choose) return; // a menu takes letters itself
    const act = {
      m: () => (this.muted = !this.muted),
      f: () => this.toggleFullscreen(),
      p: () => this.togglePictureInPicture(),
      q: () => this.#view.openMenu(),
      s: () => this.toggleAttribute('stats'),
      '?': () => this.#view.dialog.showModal(),
    }[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!act) return;
    event.preventDefault();
    this.#wake();
    Promise.resolve(act()).catch((err) => console.warn('gateway:', err.message)); // a browser may refuse what it was asked for
  }

  // ---- the session

  #open() {
    this.#close();
    const src = this.getAttribute('src');
    if (!src) return;
    const v = this.#view;
    if (!('RTCPeerConnection' in window)) return this.#say('refused', words.noWebRTC);
    let source;
    try {
      source = resolveSource(src);
    } catch (err) {
      return this.#say('refused', { title: 'No stream to play', detail: words.sentence(err.message), tone: 'fault' });
    }
    this.#host = source.host;
    this.#sound();
    this.#callUntil = 0;
    v.name.textContent = source.room;
    const policy = this.getAttribute('ice-transport-policy') === 'relay' ? 'relay' : 'all';
    const viewer = new Viewer({ url: source.url, room: source.room, token: this.getAttribute('token') ?? '', rendition: this.rendition, iceTransportPolicy: policy, startedAt: this.startedAt });
    this.#viewer = viewer;
    viewer.addEventListener('state', () => this.#render());
    viewer.addEventListener('stream', (event) => {
      this.#render();
      this.#offer();
      this.dispatchEvent(new CustomEvent('stream', { detail: event.detail }));
    });
    viewer.addEventListener('rendition', (event) => {
      this.rendition = event.detail.selected;
      this.#offer();
      this.dispatchEvent(new CustomEvent('rendition', { detail: event.detail }));
    });
    viewer.addEventListener('media', (event) => this.#picture.attach(event.detail, ['absent', 'restarting', 'ended'].includes(this.stream?.state)));
    viewer.addEventListener('quality', (event) => this.#follow(event.detail));
    viewer.addEventListener('expiring', ({ detail }) => this.dispatchEvent(new CustomEvent('expiring', { detail })));
    viewer.addEventListener('error', (event) => this.#complain(event.detail));
    if (this.#sight.last) viewer.view(this.#sight.last);
    new Frames(viewer, v.video); // ends with the viewer's session
    viewer.observe(this.hasAttribute('stats'));
    viewer.open();
    this.#tick = setInterval(() => this.#measure(), 1000);
    this.#render();
  }

  #close() {
    clearInterval(this.#tick);
    const viewer = this.#viewer;
    this.#viewer = null;
    viewer?.close();
    this.#meter = this.#stats = this.#quality = this.#firstFrame = null;
    this.#picture.clear();
    this.#view.panel.clear();
    this.#view.renditions([], { rendition: '', selected: 'auto' });
    this.#hint = null;
    this.#state = 'closed';
  }

  /** @param {import('./viewer.js').Sight} sight */
  #see(sight) {
    const returned = sight.visible && !this.#seen;
    this.#seen = sight.visible;
    this.#viewer?.view(sight);
    if (!returned) return;
    this.#picture.returned();
    this.#render();
  }

  /** @param {import('./viewer.js').Quality} quality */
  #follow(quality) {
    this.#quality = quality;
    this.#view.panel.quality.add(quality);
    this.dispatchEvent(new CustomEvent('quality', { detail: quality }));
  }

  /** Asks for the rendition that the attribute names. */
  #select() {
    const viewer = this.#viewer;
    if (viewer && viewer.choice.selected !== this.rendition) viewer.select(this.rendition);
  }

  /** Shows what can be chosen. */
  #offer() {
    this.#view.renditions(this.#viewer.renditions, this.#viewer.choice);
  }

  #complain(error) {
    this.dispatchEvent(new CustomEvent('error', { detail: error }));
    if (error.fatal || !['not-found', 'codec-unsupported'].includes(error.code)) return;
    this.#hint = words.notSelected(error.message);
    clearTimeout(this.#hintTimer);
    this.#hintTimer = setTimeout(() => {
      this.#hint = null;
      this.#render();
    }, hintFor);
    this.#render();
  }

  #begin() {
    const now = performance.now();
    this.#firstFrame = this.#viewer.firstFrame(now);
    if (!this.#callUntil) {
      this.#callUntil = now + callFor;
      setTimeout(() => this.#sound(), callFor);
    }
    this.#render();
    this.#sound();
    this.dispatchEvent(new CustomEvent('playing', { detail: { firstFrameMs: this.#firstFrame } }));
  }

  // ---- what is shown

  async #measure() {
    const pc = this.peerConnection;
    if (!pc) return;
    if (this.#meter?.pc !== pc) {
      this.#meter = Object.assign(new Meter(pc), { pc });
      this.#stats = null;
    }
    const before = this.#stats?.framesDecoded ?? 0;
    const stats = await this.#meter.read();
    if (pc !== this.peerConnection) return;
    stats.firstFrame = this.#firstFrame;
    this.#stats = stats;
    if (stats.framesDecoded !== before || !this.#sight.visible || !this.#view.video.srcObject?.getVideoTracks().length) this.#picture.moved();
    this.#render();
    this.#view.panel.quality.tick();
    this.#view.panel.show(stats, [this.#view.badge.textContent, stats.connection].join(', ').toLowerCase());
    this.dispatchEvent(new CustomEvent('stats', { detail: stats }));
  }

  /** Decides from everything known what to say; it is called whenever something of that changes. */
  #render() {
    const viewer = this.#viewer;
    if (!viewer) return;
    const { state, code, retryAt } = viewer.status;
    const stream = viewer.stream;
    const { playing, blocked } = this.#picture;
    const still = this.#sight.visible ? this.#picture.still : 0; // out of sight none may be sent
    this.#view.name.textContent = stream?.title || viewer.room;

    if (!['joined', 'connected'].includes(state)) {
      const said = words.viewerWords(viewer.status, viewer.room, this.#host);
      const name = state === 'refused' || code in { 'not-found': 1, 'codec-unsupported': 1 } ? 'refused' : code || state === 'interrupted' ? 'reconnecting' : 'connecting';
      this.#say(name, said, { small: playing && still < frozenAfter });
      this.#count(said.countdown ? retryAt : 0);
      this.#view.label(name === 'refused' ? 'Not available' : name === 'connecting' ? 'Connecting' : 'Reconnecting', said.tone === 'fault' ? 'fault' : 'wait');
      return;
    }
    this.#count(0);
    const notLive = stream && words.streamWords(stream);
    this.#view.label(words.stateNames[stream?.state] ?? 'Connecting', stream?.state === 'live' ? 'live' : stream?.state === 'absent' ? 'fault' : 'wait');
    if (blocked) return this.#say('blocked', words.blocked);
    if (playing && still < frozenAfter && !stream?.placeholder) return this.#say('playing', this.#hint, { small: true });
    if (playing && stream?.placeholder) return this.#say('waiting', words.placeholderWords(stream), { small: true });
    if (notLive) return this.#say('waiting', notLive);
    if (playing) return this.#say('frozen', words.frozen(Math.floor(still / 1000)), { small: true });
    const comes = (this.#stats?.framesReceived ?? 0) > 0 && !this.#stats.framesDecoded;
    if (comes && this.#picture.attachedFor > decodeWithin) return this.#say('refused', words.undecodable(this.#stats.codec));
    this.#say(state === 'connected' ? 'waiting' : 'connecting', { title: 'Connecting', detail: '', tone: 'busy' });
  }

  #say(state, said, form) {
    this.#view.say(said, form);
    const title = said?.title ?? '';
    if (state === this.#state && title === this.#title) return;
    this.#state = state;
    this.#title = title;
    this.dispatchEvent(new CustomEvent('state', { detail: { state, title, detail: said?.detail ?? '' } }));
  }

  #retryAt = 0;
  #countTimer = 0;

  /** Counts down to the next try. @param {number} retryAt 0: nothing to count */
  #count(retryAt) {
    this.#retryAt = retryAt;
    clearInterval(this.#countTimer);
    this.#countTimer = 0;
    if (!retryAt) {
      this.#view.count(this.#view.notice.classList.contains('small') || !this.#viewer?.status.code ? '' : 'Trying …');
      return;
    }
    const show = () => {
      const seconds = Math.ceil((this.#retryAt - performance.now()) / 1000);
      this.#view.count(seconds > 0 ? `Next try in ${seconds} s` : 'Trying …');
    };
    show();
    this.#countTimer = setInterval(show, 250);
  }

  #sound() {
    const { video } = this.#view;
    const audible = Boolean(video.srcObject?.getAudioTracks().length);
    this.#sight.audible = audible && !video.muted && video.volume > 0;
    this.#view.sound(video.muted, audible, this.#picture.playing && performance.now() < this.#callUntil);
  }

  #showStats(open) {
    this.#view.panel.element.hidden = !open;
    if (open) this.#viewer?.observe(true); // and on, so that the curves have no holes
    this.#view.statsButton.setAttribute('aria-pressed', String(open));
  }

  // ---- hands

  #listen() {
    const v = this.#view;
    const attempt = (act) => () => Promise.resolve(act()).catch((err) => console.warn('gateway:', err.message));
    v.mute.onclick = () => (this.muted = !this.muted);
    v.statsButton.onclick = () => this.toggleAttribute('stats');
    v.choose.onchange = () => (this.rendition = v.choose.value);
    v.full.onclick = attempt(() => this.toggleFullscreen());
    v.pip.onclick = attempt(() => this.togglePictureInPicture());
    v.pip.hidden = !document.pictureInPictureEnabled;
    v.help.onclick = () => v.dialog.showModal();
    v.close.onclick = () => v.dialog.close();
    v.act.onclick = () => (this.#picture.blocked ? this.#picture.play() : this.#viewer?.retryNow());
    v.video.ondblclick = attempt(() => this.toggleFullscreen());
    v.video.onvolumechange = () => this.#sound();
    // a browser pauses what it takes out of sight (picture in picture closed, a phone locked); live media only ever plays
    v.video.onpause = () => {
      if (this.#viewer && !document.hidden && v.video.srcObject?.active) this.#picture.play();
    };
    this.#picture.addEventListener('attached', () => this.#sound());
    this.#picture.addEventListener('begin', () => this.#begin());
    this.#picture.addEventListener('change', () => this.#render());
    this.#showStats(this.hasAttribute('stats'));
    this.addEventListener('fullscreenchange', () => v.fullscreen(this.matches(':fullscreen')));
    this.addEventListener('keydown', (event) => this.handleKey(event));
    for (const type of ['pointermove', 'pointerdown', 'keydown', 'focusin']) this.addEventListener(type, () => this.#wake(), { passive: true });
    this.addEventListener('pointerleave', () => this.#rest());
  }

  /** Shows the controls and lets them go after a while. */
  #wake() {
    this.#view.surface.classList.remove('idle');
    clearTimeout(this.#idleTimer);
    this.#idleTimer = setTimeout(() => this.#rest(), idleAfter);
  }

  #rest() {
    if (this.#picture.playing) this.#view.surface.classList.add('idle');
  }
}

if (!customElements.get('gateway-player')) customElements.define('gateway-player', GatewayPlayer);

/**
 * The conversation with a gateway over its WebSocket: it dials, joins, keeps the link checked, and when the link is lost dials and
 * joins again by itself. It knows nothing of media or of pages; docs/protocol.md names the messages.
 *
 * @module
 */

/** How often an open socket is asked for a sign of life, and how long it may take to give one. */
const pingEvery = 10_000;
const pongWithin = 5_000;
/** How long a socket may take to open. */
const openWithin = 10_000;
/** A socket that was open for so long counts as a success: the next loss is answered quickly again. */
const steadyAfter = 5_000;

/**
 * How long to wait before dialing again: exponential, half of it random so that a crowd doesn't come back at one moment. A page that is
 * seen never waits longer than two seconds, because its viewer is waiting too.
 *
 * @param {number} attempt tries since the last success, from 0
 * @param {boolean} visible whether anybody sees the page
 * @param {number} [random] 0 to 1
 * @returns {number} milliseconds
 */
export function retryDelay(attempt, visible, random = Math.random()) {
  const delay = Math.min(200 * 2 ** attempt, visible ? 2_000 : 15_000);
  return Math.round(delay / 2 + (delay / 2) * random);
}

/**
 * What the page began before its modules were there (early.js): a socket on which it joins, and the messages that came. It is taken
 * once, if it is the same conversation and still lives.
 *
 * @param {string} url
 * @param {{roomId: string, token?: string, rendition?: string}} join
 * @returns {{socket: WebSocket, messages: MessageEvent[]}|undefined}
 */
function begun(url, join) {
  const early = globalThis.gatewayEarly;
  if (!early?.socket) return;
  const { socket, messages } = early;
  early.socket = null;
  const same = early.join.roomId === join.roomId && early.join.rendition === join.rendition && !join.token;
  early.kept = socket.url === url && same && socket.readyState <= WebSocket.OPEN;
  if (early.kept) return { socket, messages };
  socket.onopen = null;
  socket.close();
}

/**
 * The state of a conversation: "connecting", "open", "waiting" (it dials again at retryAt) or "closed".
 *
 * @typedef {{ state: 'connecting'|'open'|'waiting'|'closed', retryAt: number }} SignalingState retryAt is on the clock of performance.now()
 */

/**
 * A conversation that outlives its sockets.
 *
 * Events: `state` (detail: SignalingState) and `message` (detail: the message, any but pong).
 */
export class Signaling extends EventTarget {
  #url;
  #join;
  /** @type {WebSocket?} */
  #socket = null;
  #state = 'closed';
  #attempt = 0;
  #retryAt = 0;
  #retryTimer = 0;
  #pingTimer = 0;
  #deadline = 0;
  #openedAt = 0;

  /**
   * @param {string} url the gateway's WebSocket, such as "ws://box:8080/ws"
   * @param {() => object} join makes the fields of the join message, once for each socket
   */
  constructor(url, join) {
    super();
    this.#url = url;
    this.#join = join;
  }

  /** The state of the conversation, as the `state` event has it. */
  get state() {
    return this.#state;
  }

  /** Dials, and keeps dialing until close. */
  open() {
    if (this.#state !== 'closed') return;
    addEventListener('online', this.#wake);
    document.addEventListener('visibilitychange', this.#wake);
    this.#dial();
  }

  /** Leaves and stops for good (until open is called again). */
  close() {
    removeEventListener('online', this.#wake);
    document.removeEventListener('visibilitychange', this.#wake);
    this.send('leave');
    this.#hangUp();
    this.#enter('closed');
  }

  /**
   * Sends a message. It is dropped when the socket isn't open: whoever joins again starts from the beginning.
   *
   * @param {string} type
   * @param {object} [fields]
   * @returns {boolean} whether it was sent
   */
  send(type, fields = {}) {
    if (this.#socket?.readyState !== WebSocket.OPEN) return false;
    this.#socket.send(JSON.stringify({ type, ...fields }));
    return true;
  }

  /**
   * Gives this socket up and joins again.
   *
   * @param {number} [delay] milliseconds; otherwise as long as the number of tries says
   */
  rejoin(delay) {
    if (this.#state === 'closed') return;
    if (this.#state === 'open' && performance.now() - this.#openedAt > steadyAfter) this.#attempt = 0;
    this.#hangUp();
    delay ??= retryDelay(this.#attempt++, !document.hidden);
    this.#retryAt = performance.now() + delay;
    this.#retryTimer = setTimeout(() => this.#dial(), delay);
    this.#enter('waiting');
  }

  /** Dials at once, if it is waiting to do so. */
  retryNow() {
    if (this.#state === 'waiting') this.#dial();
  }

  #enter(state) {
    this.#state = state;
    this.dispatchEvent(new CustomEvent('state', { detail: { state, retryAt: this.#retryAt } }));
  }

  #dial() {
    this.#hangUp();
    const join = this.#join();
    const early = begun(this.#url, join);
    let socket;
    try {
      socket = early?.socket ?? new WebSocket(this.#url);
    } catch (err) {
      // a page of https may not open ws:, and nothing but a reload changes that
      console.error('gateway: the WebSocket cannot be opened:', err);
      this.rejoin(15_000);
      return;
    }
    this.#socket = socket;
    this.#expect(openWithin);
    this.#enter('connecting');

    const opened = () => {
      if (!joined) this.send('join', join);
      this.#expect(pongWithin);
      this.#pingTimer = setInterval(() => this.#ping(pongWithin), pingEvery);
      this.#openedAt = performance.now();
      this.#enter('open');
    };
    const joined = socket.readyState === WebSocket.OPEN; // an early socket that is open has joined
    socket.onopen = opened;
    socket.onmessage = (event) => {
      clearTimeout(this.#deadline);
      this.#deadline = 0;
      let message;
      try {
        message = JSON.parse(event.data);
      } catch {
        return;
      }
      if (message?.type !== 'pong') this.dispatchEvent(new CustomEvent('message', { detail: message }));
    };
    socket.onclose = () => {
      if (socket === this.#socket) this.rejoin();
    };
    if (joined) opened();
    // when whoever opened this is ready for answers
    if (early) queueMicrotask(() => early.messages.forEach((event) => socket.onmessage?.(event)));
  }

  #ping(within) {
    if (this.send('ping') && !this.#deadline) this.#expect(within);
  }

  /** A socket that says nothing for so long is dead, whatever its readyState says. */
  #expect(within) {
    clearTimeout(this.#deadline);
    this.#deadline = setTimeout(() => this.rejoin(), within);
  }

  #hangUp() {
    clearTimeout(this.#retryTimer);
    clearTimeout(this.#deadline);
    clearInterval(this.#pingTimer);
    this.#deadline = 0;
    const socket = this.#socket;
    this.#socket = null;
    if (socket) {
      socket.onopen = socket.onmessage = socket.onclose = null;
      socket.close();
    }
  }

  /** The network came back, or the page is seen again: don't wait, and don't trust a socket that slept. */
  #wake = () => {
    if (document.hidden) return;
    this.retryNow();
    this.#ping(2_000);
  };
}

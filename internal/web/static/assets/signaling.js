/**
 * The conversation with a gateway over its WebSocket: it dials, joins, keeps the link checked, and when the link is lost dials again by
 * itself and takes up the session where it was, or joins anew where that can't be. It knows nothing of media or of pages;
 * docs/protocol.md names the messages.
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
/** How many messages are remembered until the gateway is known to have had them. */
const remembered = 256;
/** After so many tries in vain the gateway is asked for by plain HTTP before a socket is dialed: see #knock. */
const knocksAfter = 4;
/** How long the gateway may take to answer a request by plain HTTP. */
const answerWithin = 10_000;
/** How long before a token's end the gateway tells of it. */
const noticed = 60_000;

/**
 * How long to wait before dialing again: exponential, half of it random so that a crowd doesn't come back at one moment. A page that is
 * seen never waits longer than a second, because its viewer is waiting too.
 *
 * @param {number} attempt tries since the last success, from 0
 * @param {boolean} visible whether anybody sees the page
 * @param {number} [random] 0 to 1
 * @returns {number} milliseconds
 */
export function retryDelay(attempt, visible, random = Math.random()) {
  const delay = Math.min(200 * 2 ** attempt, visible ? 1_000 : 15_000);
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

/** @param {string} [code] the gateway's @param {string} [message] */
function refusal(code = '', message = code) {
  return Object.assign(new Error(message), { code });
}

/**
 * The state of a conversation: "connecting", "open", "waiting" (it dials again at retryAt) or "closed".
 *
 * @typedef {{ state: 'connecting'|'open'|'waiting'|'closed', retryAt: number }} SignalingState retryAt is on the clock of performance.now()
 */

/**
 * A conversation that outlives its sockets.
 *
 * Events: `state` (detail: SignalingState) and `message` (detail: the message, any but pong; a `joined` that is `resumed` goes on with
 * the session of the one before).
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
  #deadlineAt = 0;
  #openedAt = 0;
  /** What takes the session up again, and for how many milliseconds; null before it is joined, and when it is over. @type {{ secret: string, within: number }?} */
  #session = null;
  /** The running session's secret, also of one that can't be taken up again. */
  #secret = '';
  #lostAt = 0;
  #resuming = false;
  /** The number of the gateway's last message in the session. */
  #seq = 0;
  /** Messages of the session that the gateway may not have had, how many there were, and how many of them when each ping was sent. @type {{ number: number, message: object }[]} */
  #unconfirmed = [];
  #number = 0;
  /** The page's own beginning (early.js), if the session is its: what it has sent the gateway counts too. @type {{ sent: number }?} */
  #early = null;
  /** @type {number[]} */
  #pings = [];
  #moved = false;
  /** What waits for the answer to a message of its own, by requestId. @type {Map<string, { resolve: (answer: object) => void, reject: (err: Error) => void }>} */
  #asked = new Map();
  #asks = 0;
  /** Whether the gateway has ever answered to a knock: the policy of a page that embeds the player may not let one out. @type {boolean?} */
  #knockable = null;

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

  /** Whether the socket is lost and the session can still be taken up. */
  get resumable() {
    return this.#session !== null && (!this.#lostAt || performance.now() - this.#lostAt < this.#session.within);
  }

  /** Whether the network has changed since the gateway was last heard: media may need another way too. */
  get moved() {
    return this.#moved;
  }

  /** Dials, and keeps dialing until close. */
  open() {
    if (this.#state !== 'closed') return;
    addEventListener('online', this.#move);
    navigator.connection?.addEventListener?.('change', this.#move);
    document.addEventListener('visibilitychange', this.#wake);
    this.#dial();
  }

  /** Leaves and stops for good (until open is called again). */
  close() {
    removeEventListener('online', this.#move);
    navigator.connection?.removeEventListener?.('change', this.#move);
    document.removeEventListener('visibilitychange', this.#wake);
    this.#forget();
    this.send('leave');
    this.#hangUp();
    this.#enter('closed');
  }

  /**
   * Sends a message. In a session each comes once: what is sent while the socket is lost, and what was lost with it, the gateway gets when
   * the session is taken up again. Without one it is dropped.
   *
   * @param {string} type
   * @param {object} [fields]
   * @returns {boolean} whether it was sent, or will be
   */
  send(type, fields = {}) {
    const message = { type, ...fields };
    const kept = this.#session !== null && type !== 'ping';
    if (kept) {
      this.#unconfirmed.push({ number: ++this.#number, message });
      if (this.#unconfirmed.length > remembered) this.#unconfirmed.shift();
    }
    if (this.#resuming || this.#socket?.readyState !== WebSocket.OPEN) return kept;
    this.#socket.send(JSON.stringify(message));
    return true;
  }

  /**
   * Has the session go on by another token of the same subject; without one by what the browser is signed in with now, its cookie. Where
   * that is somebody else, it joins anew as that one.
   *
   * @param {{ token: string }} access what is joined with: it holds the new token, unless the gateway doesn't take that
   * @param {string} [token]
   * @returns {Promise<number>} when that ends, in Unix milliseconds; Infinity: never, or `joined` will say it. Rejected with an Error whose
   *   `code` is the gateway's: then all stays as it was
   */
  async renew(access, token) {
    const before = access.token;
    if (token) access.token = token;
    if (!this.#secret) {
      if (this.#state === 'connecting' || this.#state === 'open') this.rejoin(0); // with what is good now
      return Infinity;
    }
    try {
      const { expires } = token ? await this.#ask('token', { token }) : await this.#present();
      return expires || Infinity;
    } catch (err) {
      if (err.code !== 'forbidden') {
        if (err.code && access.token === token) access.token = before;
        throw err;
      }
      this.#forget();
      this.send('leave');
      this.#redial(0);
      return Infinity;
    }
  }

  /** Shows the browser's cookie, which no script can read. @returns {Promise<{ expires?: number }>} */
  async #present() {
    const answer = await fetch(new URL('api/renewals', this.#url.replace(/^ws/, 'http')), {
      method: 'POST',
      cache: 'no-store',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({ session: this.#secret }),
      signal: AbortSignal.timeout(answerWithin),
    });
    const told = await answer.json().catch(() => ({}));
    if (!answer.ok) throw refusal(told.code, told.detail || `the gateway answered ${answer.status}`);
    return told;
  }

  /** Sends a message of the session and waits for what answers it. */
  #ask(type, fields) {
    const requestId = `ask-${++this.#asks}`;
    return new Promise((resolve, reject) => {
      this.#asked.set(requestId, { resolve, reject });
      this.send(type, { ...fields, requestId });
    });
  }

  /**
   * Gives this socket and its session up and joins anew.
   *
   * @param {number} [delay] milliseconds; otherwise as long as the number of tries says
   */
  rejoin(delay) {
    this.#forget();
    this.#redial(delay);
  }

  /** Asks for a sign of life now: something else says that the network has trouble. */
  check() {
    this.#ping(2_000);
  }

  /** Dials at once, if it is waiting to do so. */
  retryNow() {
    if (this.#state === 'waiting') this.#dial();
  }

  #redial(delay) {
    if (this.#state === 'closed') return;
    if (this.#state === 'open' && performance.now() - this.#openedAt > steadyAfter) this.#attempt = 0;
    this.#lostAt ||= performance.now();
    this.#resuming = this.#session !== null;
    this.#hangUp();
    delay ??= retryDelay(this.#attempt++, !document.hidden);
    this.#retryAt = performance.now() + delay;
    this.#retryTimer = setTimeout(() => this.#knock(), delay);
    this.#enter('waiting');
  }

  /**
   * Dials once the gateway answers to plain HTTP. Chromium holds back the sockets of a page after some that failed, by one to five seconds
   * each (WebSocketPerProcessThrottler): a page that had dialed for a minute was back six seconds after the gateway.
   */
  async #knock() {
    if (!this.#knockable || this.#attempt < knocksAfter) return this.#dial();
    const turn = this.#retryTimer;
    const there = await this.#answers();
    if (this.#state !== 'waiting' || turn !== this.#retryTimer) return;
    if (there) this.#dial();
    else this.#redial();
  }

  async #answers() {
    try {
      const url = new URL('healthz', this.#url.replace(/^ws/, 'http'));
      const answer = await fetch(url, { mode: 'no-cors', cache: 'no-store', credentials: 'omit', signal: AbortSignal.timeout(pongWithin) });
      return answer.ok || answer.type === 'opaque';
    } catch {
      return false;
    }
  }

  #forget() {
    this.#session = null;
    this.#secret = '';
    this.#resuming = false;
    this.#unconfirmed = [];
    for (const { reject } of this.#asked.values()) reject(refusal('', 'the session has ended'));
    this.#asked.clear();
  }

  #enter(state) {
    this.#state = state;
    this.dispatchEvent(new CustomEvent('state', { detail: { state, retryAt: this.#retryAt } }));
  }

  #dial() {
    this.#hangUp();
    if (!this.resumable) this.#forget();
    const join = { ...this.#join(), ...(this.#session ? { resume: this.#session.secret, seq: this.#seq } : {}) };
    const early = begun(this.#url, join);
    if (!this.#session) this.#early = early ? globalThis.gatewayEarly : null;
    let socket;
    try {
      socket = early?.socket ?? new WebSocket(this.#url);
    } catch (err) {
      // a page of https may not open ws:, and nothing but a reload changes that
      console.error('gateway: the WebSocket cannot be opened:', err);
      this.#redial(15_000);
      return;
    }
    this.#socket = socket;
    this.#expect(openWithin);
    this.#enter('connecting');

    const opened = () => {
      if (!joined) socket.send(JSON.stringify({ type: 'join', ...join }));
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
      if (message) this.#hear(message);
    };
    socket.onclose = () => {
      if (socket === this.#socket) this.#redial();
    };
    if (joined) opened();
    // when whoever opened this is ready for answers
    if (early) queueMicrotask(() => early.messages.forEach((event) => socket.onmessage?.(event)));
  }

  #hear(message) {
    // what was sent before the ping that is answered has come too: a socket keeps the order
    if (message.type === 'pong') {
      this.#moved = false;
      return this.#confirm(this.#pings.shift() ?? 0);
    }
    if (message.type === 'joined') this.#begin(message);
    else if (message.seq) {
      if (message.seq <= this.#seq) return; // sent again, but it had come
      this.#seq = message.seq;
    }
    const asked = this.#asked.get(message.requestId);
    if (asked) {
      this.#asked.delete(message.requestId);
      if (message.type === 'error') asked.reject(refusal(message.code, message.message));
      else asked.resolve(message);
    }
    if (message.type === 'error' && message.code === 'resume-failed') return this.rejoin(0);
    if (message.type === 'left' || (message.type === 'error' && message.fatal)) this.#forget();
    this.dispatchEvent(new CustomEvent('message', { detail: message }));
    if (message.type !== 'joined') return;
    this.#moved = false;
    const { expires, timestamp } = message; // both by the gateway's clock
    if (expires - timestamp < noticed) this.dispatchEvent(new CustomEvent('message', { detail: { type: 'token-expiring', expires } })); // which it says no more
  }

  #begin({ session, resumed, received = 0, resumeWithin }) {
    this.#secret = session;
    this.#session = resumeWithin ? { secret: session, within: resumeWithin * 1_000 } : null;
    this.#lostAt = 0;
    this.#resuming = false;
    if (this.#knockable === null) {
      this.#knockable = false;
      setTimeout(() => this.#answers().then((there) => { this.#knockable = there; }), 1_000); // the picture comes first
    }
    if (!resumed) {
      this.#seq = this.#number = 0;
      this.#unconfirmed = [];
      return;
    }
    this.#confirm(received - (this.#early?.sent ?? 0));
    for (const { message } of this.#unconfirmed) this.#socket?.send(JSON.stringify(message));
  }

  #ping(within) {
    if (!this.send('ping')) return;
    this.#pings.push(this.#number);
    if (!this.#deadline || performance.now() + within < this.#deadlineAt) this.#expect(within);
  }

  /** The gateway has had so many messages of the session. @param {number} count */
  #confirm(count) {
    this.#unconfirmed = this.#unconfirmed.filter(({ number }) => number > count);
  }

  /** A socket that says nothing for so long is dead, whatever its readyState says. */
  #expect(within) {
    clearTimeout(this.#deadline);
    this.#deadline = setTimeout(() => this.#redial(), within);
    this.#deadlineAt = performance.now() + within;
  }

  #hangUp() {
    clearTimeout(this.#retryTimer);
    clearTimeout(this.#deadline);
    clearInterval(this.#pingTimer);
    this.#deadline = 0;
    this.#pings = [];
    const socket = this.#socket;
    this.#socket = null;
    if (socket) {
      socket.onopen = socket.onmessage = socket.onclose = null;
      socket.close();
    }
  }

  #move = () => {
    this.#moved = true;
    this.#wake();
  };

  /** The network came back, or the page is seen again: don't wait, and don't trust a socket that slept. */
  #wake = () => {
    if (document.hidden && !this.#moved) return;
    this.retryNow();
    this.check();
  };
}

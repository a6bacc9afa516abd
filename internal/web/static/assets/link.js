/**
 * What watching a stream and being in a room have in common: the conversation with a gateway, the connection on which it sends, and one
 * status of both, kept over lost sockets and refusals.
 *
 * @module
 */
import { Receiver } from './receiver.js';
import { Signaling } from './signaling.js';

/**
 * A link to a gateway.
 *
 * Events: `state` (detail: ViewerState), `away` (the page goes, its place at the gateway is free: the connection is to be closed) and `back`
 * (it came out of the browser's cache: another connection is to be made).
 */
export class Link extends EventTarget {
  /** @type {Signaling} */
  signaling;
  /** @type {Receiver} */
  receiver;
  #retryAfter;
  /** @type {import('./viewer.js').ViewerState} */
  #status = { state: 'closed', code: '', message: '', retryAt: 0 };
  /** Whether the socket of this try has opened. */
  #opened = false;
  /** @type {{code: string, message: string}?} why the session that is about to end ends */
  #reason = null;

  /**
   * @param {object} options
   * @param {string} options.url the gateway's WebSocket
   * @param {() => object} options.join makes the fields of the join message, once for each socket
   * @param {RTCIceTransportPolicy} options.iceTransportPolicy
   * @param {Record<string, number?>} options.retryAfter after which codes it is refused rather than lost
   */
  constructor({ url, join, iceTransportPolicy, retryAfter }) {
    super();
    this.#retryAfter = retryAfter;
    this.signaling = new Signaling(url, join);
    this.receiver = new Receiver(this.signaling, iceTransportPolicy);
    this.receiver.addEventListener('connected', () => this.enter('connected'));
    this.receiver.addEventListener('interrupted', () => this.enter('interrupted'));
    this.signaling.addEventListener('state', ({ detail }) => this.#follow(detail));
  }

  /** What is going on. @returns {import('./viewer.js').ViewerState} */
  get status() {
    return this.#status;
  }

  /** @param {import('./viewer.js').ViewerState['state']} state @param {Partial<import('./viewer.js').ViewerState>} [why] */
  enter(state, { code = '', message = '', retryAt = 0 } = {}) {
    this.#status = { state, code, message, retryAt };
    this.dispatchEvent(new CustomEvent('state', { detail: this.#status }));
  }

  /** Opens the conversation; the connection is its user's to make. */
  open() {
    addEventListener('pagehide', this.#leave);
    addEventListener('pageshow', this.#return);
    this.signaling.open();
  }

  /** Ends the conversation. */
  close() {
    removeEventListener('pagehide', this.#leave);
    removeEventListener('pageshow', this.#return);
    this.signaling.close();
  }

  /**
   * Gives up this session and joins again, with the reason to show meanwhile.
   *
   * @param {string} code
   * @param {string} [message]
   * @param {number} [delay] milliseconds; otherwise as long as the number of tries says
   */
  lose(code, message = '', delay = undefined) {
    this.#reason = { code, message };
    this.signaling.rejoin(delay);
  }

  #follow({ state, retryAt }) {
    if (state === 'connecting') this.enter('connecting', { ...this.#status, retryAt: 0 });
    if (state === 'open') this.#opened = true;
    if (state !== 'waiting') return;
    this.receiver.rest();
    const { code, message } = this.#reason ?? { code: this.#opened ? 'connection-lost' : 'unreachable', message: '' };
    this.#reason = null;
    this.#opened = false;
    this.enter(code in this.#retryAfter ? 'refused' : 'reconnecting', { code, message, retryAt });
  }

  #leave = () => {
    this.signaling.close();
    this.dispatchEvent(new Event('away'));
  };

  #return = (event) => {
    if (!event.persisted) return;
    this.signaling.open();
    this.dispatchEvent(new Event('back'));
  };
}

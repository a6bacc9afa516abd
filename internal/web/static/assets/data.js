/**
 * The data channels of a room: messages of applications, by the connection on which the gateway sends. docs/protocol.md, Data.
 *
 * @module
 */

/** The largest message that the gateway takes, in bytes. */
export const largest = 64 << 10;

const text = new TextEncoder();

/**
 * Opened when they are asked for, and again in later sessions.
 *
 * Events: `message` (detail: {userId, data, lossy}: JSON as the value that it is, bytes as a Uint8Array), `open`, `close`.
 */
export class DataChannels extends EventTarget {
  #ask;
  #wanted = false;
  #asked = false;
  /** @type {Map<string, RTCDataChannel>} */
  #channels = new Map();

  /**
   * @param {import('./receiver.js').Receiver} receiver
   * @param {() => boolean} ask asks the gateway for the channels; whether it could
   */
  constructor(receiver, ask) {
    super();
    this.#ask = ask;
    receiver.addEventListener('channel', ({ detail }) => this.#take(detail));
  }

  /** Whether what is sent goes out now. */
  get ready() {
    return this.#channels.get('reliable')?.readyState === 'open';
  }

  /** Asks for the channels, now and in later sessions. It takes `relay`. */
  open() {
    this.#wanted = true;
    this.#request();
  }

  /** Another session has begun. */
  begin() {
    this.#asked = false;
    this.#channels.clear();
    this.#request();
  }

  /**
   * Sends to one participant, or to all who have opened theirs.
   *
   * @param {unknown} data any JSON; an ArrayBuffer or a view of one goes as bytes
   * @param {{ target?: string, lossy?: boolean }} [how] target: a userId; lossy: better lost than late
   * @returns {boolean} whether it is on its way
   */
  send(data, { target = '', lossy = false } = {}) {
    const channel = this.#channels.get(lossy ? 'lossy' : 'reliable');
    if (channel?.readyState !== 'open') return false;
    channel.send(data instanceof ArrayBuffer || ArrayBuffer.isView(data) ? framed(data, target) : JSON.stringify({ ...(target ? { target } : {}), data }));
    return true;
  }

  #request() {
    if (this.#wanted && !this.#asked) this.#asked = this.#ask();
  }

  /** @param {RTCDataChannel} channel */
  #take(channel) {
    channel.binaryType = 'arraybuffer';
    this.#channels.set(channel.label, channel);
    const lossy = channel.label === 'lossy';
    const tell = (type) => () => !lossy && this.#channels.get(channel.label) === channel && this.dispatchEvent(new Event(type));
    channel.onopen = tell('open');
    channel.onclose = tell('close');
    channel.onmessage = ({ data }) => {
      const message = read(data);
      if (message) this.dispatchEvent(new CustomEvent('message', { detail: { ...message, lossy } }));
    };
    if (channel.readyState === 'open') channel.onopen();
  }
}

/** Bytes behind the length of a userId, and it. */
function framed(data, target) {
  const bytes = data instanceof ArrayBuffer ? new Uint8Array(data) : new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  const id = text.encode(target);
  const out = new Uint8Array(1 + id.length + bytes.length);
  out[0] = id.length;
  out.set(id, 1);
  out.set(bytes, 1 + id.length);
  return out;
}

/** @param {string|ArrayBuffer} data @returns {{ userId: string, data: unknown }?} */
function read(data) {
  if (typeof data !== 'string') {
    const bytes = new Uint8Array(data);
    if (!bytes.length || bytes.length < 1 + bytes[0]) return null;
    return { userId: new TextDecoder().decode(bytes.subarray(1, 1 + bytes[0])), data: bytes.subarray(1 + bytes[0]) };
  }
  try {
    const { userId, data: value } = JSON.parse(data);
    return typeof userId === 'string' ? { userId, data: value } : null;
  } catch {
    return null;
  }
}

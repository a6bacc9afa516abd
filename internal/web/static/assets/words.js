/**
 * What is going on, in words: the one place where states and codes become sentences.
 *
 * @module
 */
import { codecName } from './stats.js';

/**
 * @typedef {object} Words
 * @property {string} title a few words
 * @property {string} detail a sentence or two: the reason and, where there is one, the remedy
 * @property {'busy'|'calm'|'fault'} tone something is under way, somebody waits for something outside, or something is wrong
 * @property {boolean} [countdown] the next try has a time
 * @property {'retry'|'play'} [action] what a click can do about it
 */

/** How a stream's state is called on a badge. */
export const stateNames = {
  live: 'Live',
  idle: 'Idle',
  starting: 'Starting',
  restarting: 'Restarting',
  absent: 'Absent',
  ended: 'Ended',
  closed: 'Closed',
};

/**
 * The sentence for a stream that isn't live.
 *
 * @param {import('./viewer.js').Stream} stream
 * @returns {Words?} null when it is live, or about to be
 */
export function streamWords(stream) {
  const reason = sentence(stream.reason);
  switch (stream.state) {
    case 'absent':
      return { title: 'No source', detail: `${reason || 'The source isn’t there.'} The picture comes by itself when the source does.`, tone: 'calm' };
    case 'restarting':
      return { title: 'Restarting', detail: `${reason || 'The pipeline failed and is being started again.'} The picture comes back by itself.`, tone: 'busy' };
    case 'starting':
      return { title: 'Starting', detail: reason || 'The capture is being started.', tone: 'busy' };
    case 'ended':
      return { title: 'The file has ended', detail: 'It plays again for the next viewer, once all have left.', tone: 'calm' };
    case 'closed':
      return { title: 'The stream has ended', detail: reason || 'It was removed from the gateway.', tone: 'calm' };
  }
  return null;
}

/**
 * The sentence over a placeholder, which says the rest.
 *
 * @param {import('./viewer.js').Stream} stream
 * @returns {Words}
 */
export function placeholderWords(stream) {
  return streamWords(stream) ?? { title: 'Interrupted', detail: 'The encoder of this quality is being started again.', tone: 'busy' };
}

/**
 * The sentence for a viewer that isn't connected.
 *
 * @param {import('./viewer.js').ViewerState} status
 * @param {string} room the stream's name
 * @param {string} host the gateway's host and port
 * @returns {Words}
 */
export function viewerWords({ state, code, message }, room, host) {
  const said = sentence(message);
  const again = { countdown: state !== 'connecting', action: 'retry' };
  switch (code) {
    case 'not-found':
      return { title: 'No such stream', detail: `This gateway has no stream named “${room}”. It plays as soon as there is one.`, tone: 'calm', ...again };
    case 'codec-unsupported':
      return {
        title: 'This browser can’t decode the stream',
        detail: `${said} Open it in another browser, or set codec: vp8 in the stream’s YAML file, for all or for one more rendition.`,
        tone: 'fault',
        ...again,
      };
    case 'too-many-viewers':
      return { title: 'All places are taken', detail: said || 'The gateway serves as many viewers as it may.', tone: 'calm', ...again };
    case 'unauthorized':
      return { title: 'Sign in to watch', detail: 'This gateway shows its streams to those who have a link, a token or a name and password.', tone: 'calm', action: 'retry' };
    case 'token-expired':
      return { title: 'Your access has expired', detail: 'Ask for a new link, or sign in again.', tone: 'calm', action: 'retry' };
    case 'forbidden':
      return { title: 'You may not see this', detail: said || 'Your access doesn’t extend to it.', tone: 'calm', ...again };
    case 'room-closed':
      return { title: 'The room is closed', detail: said || 'Somebody who may has closed it.', tone: 'calm', action: 'retry' };
    case 'room-locked':
      return { title: 'The room is locked', detail: 'Ask somebody inside to unlock it. You come in as soon as it is.', tone: 'calm', ...again };
    case 'room-full':
      return { title: 'The room is full', detail: said || 'You come in as soon as a place is free.', tone: 'calm', ...again };
    case 'rate-limited':
      return { title: 'Too many messages', detail: 'The gateway asked this page to slow down.', tone: 'fault', ...again };
    case 'unsupported-version':
      return { title: 'The page is out of date', detail: 'The gateway was changed meanwhile. Reload the page.', tone: 'fault' };
    case 'stream-changed':
      return { title: 'The stream was changed', detail: 'The new picture is on its way.', tone: 'busy' };
    case 'stream-closed':
      return { title: 'The stream has ended', detail: 'It was removed from the gateway.', tone: 'calm', ...again };
    case 'shutting-down':
      return { title: 'The gateway is stopping', detail: 'The picture comes back when it runs again.', tone: 'calm', ...again };
    case 'unreachable':
      if (!navigator.onLine) return { title: 'This device is offline', detail: 'The picture comes back with the network.', tone: 'fault', ...again };
      return { title: 'The gateway doesn’t answer', detail: `${host} can’t be reached.`, tone: 'fault', ...again };
    case 'no-path':
      return {
        title: 'No way through for the media',
        detail: `The page reaches ${host}, but the picture doesn’t: something between blocks UDP. Open that port, or give the gateway a TURN server.`,
        tone: 'fault',
        ...again,
      };
    case 'negotiation':
    case 'internal':
    case 'timeout':
      return { title: 'The connection couldn’t be made', detail: said, tone: 'fault', ...again };
    case '':
      if (state === 'interrupted') return { title: 'The connection is interrupted', detail: 'Looking for another way.', tone: 'busy' };
      return { title: 'Connecting', detail: '', tone: 'busy' };
  }
  return { title: 'The connection is lost', detail: said, tone: 'busy', ...again };
}

/** The sentence when the browser has no WebRTC. @type {Words} */
export const noWebRTC = {
  title: 'This browser has no WebRTC',
  detail: 'It is switched off or missing. Open the page in another browser.',
  tone: 'fault',
};

/** The sentence when the browser wants a click before it plays. @type {Words} */
export const blocked = { title: 'Ready to play', detail: 'The browser waits for a click.', tone: 'calm', action: 'play' };

/**
 * The sentence for media that comes but never becomes a picture.
 *
 * @param {string} codec
 * @returns {Words}
 */
export function undecodable(codec) {
  return {
    title: 'This browser can’t decode the stream',
    detail: `${codecName(codec) || 'Video'} comes in, but no picture comes out. Open it in another browser, or set codec: vp8 in the stream’s YAML file.`,
    tone: 'fault',
  };
}

/**
 * The sentence for a rendition that the gateway didn't switch to.
 *
 * @param {string} message the gateway's reason
 * @returns {Words}
 */
export function notSelected(message) {
  return { title: 'The quality stays as it was', detail: sentence(message), tone: 'fault' };
}

/**
 * The sentence for an edit of a stream's file that the gateway didn't take.
 *
 * @param {string} name the stream's
 * @param {import('./viewer.js').Reload} [reload]
 * @returns {string} a line, and one for each finding; empty when there is nothing to say
 */
export function refusedEdit(name, reload) {
  if (!reload || reload.ok) return '';
  return [`pipelines/${name}.yaml: edit refused: ${reload.message}`, ...(reload.findings ?? [])].join('\n');
}

/** How the things that the gateway decides are called. */
const decided = { rendition: 'Rendition', bitrate: 'Bitrate', framerate: 'Frame rate', size: 'Size', pause: 'Paused', resume: 'Resumed', estimate: 'Estimate' };

/**
 * What a decision was and why.
 *
 * @param {import('./viewer.js').Decision} decision
 * @returns {[string, string]} such as "Rendition high → low" and "the network carries 0.6 Mbit/s", which may be empty
 */
export function decisionWords({ what, from, to, reason = '' }) {
  const change = from && to ? `${from} → ${to}` : to || from;
  return [[decided[what] ?? what, change].filter(Boolean).join(' '), reason];
}

/**
 * Which way a decision goes.
 *
 * @param {import('./viewer.js').Decision} decision
 * @param {string[]} ladder names of the renditions, best first
 * @returns {'up'|'down'|'pause'|'resume'|'change'}
 */
export function decisionTrend({ what, from = '', to = '' }, ladder) {
  if (what === 'pause' || what === 'resume') return what;
  const size = (text) => (what === 'rendition' ? -ladder.indexOf(text) : parseFloat(text) * ({ k: 1e3, M: 1e6, G: 1e9 }[/[kMG](?=bit)/.exec(text)?.[0]] ?? 1));
  if (size(to) > size(from)) return 'up';
  return size(to) < size(from) ? 'down' : 'change';
}

/** How the stages of a frame's way are called. */
const stages = {
  capture: 'Capture', encode: 'Encoding', packetize: 'Packetizing', queue: 'Sending', network: 'Network', jitterBuffer: 'Jitter buffer', decode: 'Decoding',
  render: 'Rendering', total: 'In all',
};

/**
 * The stages of a latency in the order that a frame passes them, with their names.
 *
 * @template T
 * @param {Record<string, T>} latency
 * @returns {[string, string, T][]} a stage, its name, and what is told of it
 */
export function inOrder(latency) {
  const known = Object.keys(stages);
  const others = Object.keys(latency).filter((stage) => !known.includes(stage));
  return [...known.slice(0, -1), ...others, 'total'].filter((stage) => latency[stage]).map((stage) => [stage, stages[stage] ?? stage, latency[stage]]);
}

/**
 * The sentence for a picture that stands still while the stream says that it is live.
 *
 * @param {number} seconds
 * @returns {Words}
 */
export function frozen(seconds) {
  return { title: 'No new frames', detail: `for ${seconds} seconds`, tone: 'busy' };
}

/** A reason of the gateway (lower case, no full stop) as a sentence. @param {string} [text] */
export function sentence(text = '') {
  const trimmed = text.trim();
  if (!trimmed) return '';
  const upper = trimmed[0].toUpperCase() + trimmed.slice(1);
  return /[.!?…]$/.test(upper) ? upper : `${upper}.`;
}

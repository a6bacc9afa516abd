/**
 * The page of a room: the room's streams as tiles, who is there, and this participant's own part.
 *
 * @module
 */
import { root, signIn, stay, takeToken } from './access.js';
import { element, setText } from './elements.js';
import { icon } from './icons.js';
import { Publisher } from './publisher.js';
import { decodable, receivableCodecs } from './receiver.js';
import { Room } from './room.js';
import { Bar, memory } from './room-bar.js';
import { Chat } from './room-chat.js';
import { People } from './room-people.js';
import { confirmed, otherRoom, share } from './room-share.js';
import { Tile, Tiles } from './tiles.js';
import { sentence, streamWords, viewerWords } from './words.js';

let name = decodeURIComponent(location.pathname.replace(/\/+$/, '').replace(/^.*\//, ''));
const options = new URLSearchParams(location.search);
const part = (id) => document.getElementById(id);
const toastsFor = 7_000;

const room = new Room({
  url: new URL('ws', root).href.replace(/^http/, 'ws'),
  room: name,
  name: options.get('name') ?? memory.get('gateway.name'),
  iceTransportPolicy: options.has('relay') ? 'relay' : 'all',
});
const publisher = new Publisher(room);
const tiles = new Tiles(part('tiles'));
const people = new People(room, confirmed, otherRoom);
const chat = new Chat(room);
const bar = new Bar(part('bar'), room, publisher);
/** Streams that can't be had, and why. @type {Map<string, string>} */
const refused = new Map();
/** Why nothing is sent of a stream that is seen, by its name. @type {Map<string, string>} */
const unsent = new Map();
/** Whether the page was in the room: then a refusal needn't hide what is there. */
let entered = false;
let blocked = new Set();
/** Which rendition was asked for, by stream. @type {Map<string, string>} */
const selected = new Map();
const types = receivableCodecs().video;

// ---- what is said

/** Says something for a while. @param {string} title @param {string} [detail] */
function toast(title, detail = '') {
  const e = element('div', { class: 'toast' }, element('strong', {}, title), ...(detail ? [element('span', {}, detail)] : []));
  part('toasts').append(e);
  setTimeout(() => e.remove(), toastsFor);
}

/** Says something in the place of the tiles; null takes it away. */
function notice(words, ...buttons) {
  const box = part('notice');
  const key = words ? `${words.title}|${words.detail}|${buttons.map((b) => b.textContent)}` : '';
  if (box.dataset.key === key) return;
  box.dataset.key = key;
  box.hidden = !words;
  box.className = `notice ${words?.tone ?? ''}`;
  if (words) box.replaceChildren(element('h2', {}, words.title), element('p', {}, words.detail), ...(buttons.length ? [element('div', { class: 'answers' }, ...buttons)] : []));
}

function action(text, work, quiet = false) {
  const b = element('button', { type: 'button', class: quiet ? 'quiet' : 'button' }, text);
  b.onclick = work;
  return b;
}

const home = (text, quiet) => {
  const a = element('a', { class: quiet ? 'quiet' : 'button', href: root.href }, text);
  return a;
};

const goodbye = {
  leave: { title: 'You have left the room', detail: 'Your camera and microphone are off.', tone: 'calm' },
  removed: { title: 'You were removed from the room', detail: 'A host has ended your part in it.', tone: 'calm' },
  'room-closed': { title: 'The room was closed', detail: 'A host has closed it for everybody.', tone: 'calm' },
};

function render() {
  const { state, code, message } = room.status;
  const title = room.room.title || name;
  document.title = `${title} · gateway`;
  setText(part('title'), title);
  part('title').classList.toggle('locked', Boolean(room.room.locked));
  const connected = state === 'connected' || state === 'joined';
  entered ||= connected;
  const words = {
    connected: room.room.locked ? 'Connected, the room is locked' : 'Connected',
    joined: room.room.locked ? 'Connected, the room is locked' : 'Connected',
    connecting: entered ? 'Reconnecting. Your place is kept' : 'Connecting',
    reconnecting: entered ? 'Reconnecting. Your place is kept' : 'Connecting',
    interrupted: 'The network has changed. Looking for another way',
    refused: 'Not in the room',
    left: 'Not in the room',
  }[state] ?? '';
  setText(part('state'), words);
  part('state').className = connected ? 'live' : state === 'refused' ? 'fault' : state === 'left' ? '' : 'wait';
  part('bar').hidden = state === 'left' || state === 'closed' || (state === 'refused' && !room.session);
  if (state === 'left') return notice(goodbye[code] ?? goodbye.leave, home('All streams', true), action('Join again', () => room.open()));
  if (state === 'refused') {
    const said = code === 'not-found' ? { title: 'No such room', detail: `This gateway has no room named “${name}”, and you may not open one.`, tone: 'calm' } : viewerWords(room.status, name, location.host);
    const again = ['unauthorized', 'token-expired'].includes(code) ? action('Sign in', enter) : action('Try now', () => room.retryNow());
    return notice({ ...said, detail: said.detail || sentence(message) }, home('All streams', true), again);
  }
  if (['connecting', 'reconnecting'].includes(state) && (!entered || (code && code !== 'connection-lost'))) {
    return notice(viewerWords(room.status, name, location.host), ...(code ? [action('Try now', () => room.retryNow())] : []));
  }
  if (connected && !tiles.count) {
    const may = room.self.can.has('publish');
    return notice({
      title: may ? 'Nobody is sending yet' : 'Nothing to see yet',
      detail: may ? 'Switch your camera on, share a screen, or invite others.' : 'Pictures come by themselves when somebody sends.', tone: 'calm',
    }, ...(may ? [action('Share a link', () => share(room), true), action('Camera on', () => bar.camera.click())] : []));
  }
  notice(null);
}

// ---- tiles

/** The tiles that there are to be: one's own first, then those of the room. */
function list() {
  const own = publisher.sources;
  const mine = new Set(own.map(({ stream }) => stream));
  const others = [...room.streams.values()].filter(({ name: n, publisher: by, state }) => !mine.has(n) && !(by && by === room.self.userId) && state !== 'closed');
  const screens = (key) => (/-screen$/.test(key) ? 0 : 1); // what is shown to all comes first
  const keys = [...others.map((stream) => stream.name).sort((a, b) => screens(a) - screens(b)), ...own.map(({ label }) => `own:${label}`)];
  tiles.set(keys, make);
  for (const source of own) showOwn(source);
  for (const stream of others) showStream(stream);
  part('tiles').hidden = !keys.length;
  render();
}

function make(key) {
  if (key.startsWith('own:')) {
    const label = key.slice(4);
    return new Tile(key, { own: true, mirrored: label === 'camera', enlarge: () => tiles.enlarge(key) });
  }
  const tile = new Tile(key, {
    enlarge: () => tiles.enlarge(key),
    see: (sight) => {
      if (sight.visible) room.watch(key, { view: sight }); // not before somebody can see it
      room.view(key, sight);
    },
    choose: (rendition) => room.select(key, rendition),
  });
  tile.blocked = (on) => {
    if (on) blocked.add(key);
    else blocked.delete(key);
    bar.sound.hidden = !blocked.size;
  };
  tile.attach(room.media(key));
  return tile;
}

function showOwn(source) {
  const tile = tiles.get(`own:${source.label}`);
  const pictured = source.media.getVideoTracks().length > 0 && !source.muted.video;
  if (tile.video.srcObject !== source.media) tile.attach(source.media);
  else tile.play();
  const silent = source.kind === 'camera' && (source.muted.audio || !source.media.getAudioTracks().length);
  const who = room.self.name || 'You';
  tile.show({
    name: source.kind === 'screen' ? 'Your screen' : `${who} (you)`, silent, paused: !pictured,
    ...(source.stream || !room.session ? {} : { detail: pictured ? '' : 'Is being sent' }),
  });
}

function showStream(stream) {
  const tile = tiles.get(stream.name);
  const by = room.participants.get(stream.publisher ?? '');
  const who = by?.name || stream.title || stream.name;
  const video = stream.tracks?.some(({ kind }) => kind === 'video');
  const why = refused.get(stream.name);
  const idle = unsent.get(stream.name);
  const words = why ? { title: 'This can’t be shown', detail: sentence(why) }
    : streamWords(stream) ?? (idle ? { title: 'Paused', detail: sentence(idle) } : { title: '', detail: '' });
  const muted = (kind) => Boolean(by?.muted?.includes(kind));
  tile.show({
    name: by && stream.label === 'screen' ? `${who}’s screen` : who,
    title: muted('video') && stream.label !== 'screen' ? '' : words.title,
    detail: words.detail,
    silent: Boolean(stream.publisher) && stream.label === 'camera' && (muted('audio') || (stream.tracks?.length > 0 && !stream.tracks.some(({ kind }) => kind === 'audio'))),
    paused: muted('video') || (stream.tracks?.length > 0 && !video),
  });
  tile.renditions(decodable(stream.tracks, types), selected.get(stream.name));
}

// ---- what happens

for (const type of ['streams', 'participants', 'joined', 'state', 'room']) room.addEventListener(type, list);
publisher.addEventListener('change', list);
room.addEventListener('media', ({ detail: { stream, media } }) => {
  refused.delete(stream);
  tiles.get(stream)?.attach(media);
});
room.addEventListener('rendition', ({ detail: { stream, selected: name, reason = '' } }) => {
  selected.set(stream, name);
  if (reason) unsent.set(stream, reason);
  else unsent.delete(stream);
  list();
});
room.addEventListener('joined', ({ detail: { type, resumed } }) => {
  if (resumed) return;
  if (type === 'moved') {
    name = room.room.roomId;
    history.replaceState(null, '', new URL(`room/${encodeURIComponent(name)}${location.search}`, root));
    memory.set('gateway.room', name, sessionStorage);
    chat.clear();
    toast('A host has moved you', `You are in “${room.room.title || name}” now.`);
  }
  refused.clear();
  for (const tile of tiles.all) if (!tile.own) tile.attach(room.media(tile.key));
});
room.addEventListener('refused', ({ detail: { stream, message } }) => {
  refused.set(stream, message);
  list();
});
room.addEventListener('error', ({ detail: { code, message, fatal, requestId } }) => {
  if (fatal) {
    if (['unauthorized', 'token-expired'].includes(code)) enter(code);
    return;
  }
  if (requestId || code === 'bad-state') return; // said where it was asked
  toast(code === 'forbidden' ? 'You may not do that' : 'That didn’t work', sentence(message));
});
room.addEventListener('expiring', ({ detail: { expires } }) => stay(expires, () => room.renew()));
room.addEventListener('closed', () => {
  openPanel('');
  list();
});
bar.addEventListener('said', ({ detail }) => toast(detail.title, detail.detail));
bar.addEventListener('people', () => openPanel(part('people').hidden ? 'people' : ''));
bar.addEventListener('chat', () => openPanel(part('chat').hidden ? 'chat' : ''));
chat.addEventListener('said', ({ detail }) => toast(detail.name, detail.text));
chat.addEventListener('change', () => {
  bar.chat.hidden = !chat.allowed;
  bar.chat.dataset.count = chat.unread || '';
  if (!chat.allowed && !part('chat').hidden) openPanel('');
});
bar.addEventListener('share', () => share(room));
bar.addEventListener('leave', () => room.leave());
bar.addEventListener('sound', () => tiles.all.forEach((tile) => {
  tile.video.muted = tile.own;
  tile.play();
}));
document.addEventListener('visibilitychange', () => tiles.all.forEach((tile) => tile.render()));

/** Opens one of the panels beside the pictures. @param {''|'people'|'chat'} name */
function openPanel(name) {
  for (const one of ['people', 'chat']) {
    part(one).hidden = one !== name;
    bar[one].setAttribute('aria-expanded', String(one === name));
  }
  if (name === 'people') people.render();
  if (name === 'chat') chat.opened();
}
for (const one of ['people', 'chat']) {
  part(`${one}-close`).append(icon('close'));
  part(`${one}-close`).onclick = () => {
    openPanel('');
    bar[one].focus();
  };
}
openPanel('');

document.addEventListener('keydown', (event) => {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (document.querySelector('dialog[open]') || event.target.matches?.('input, select, textarea')) return;
  if (event.key === 'Escape') tiles.enlarge('');
  else if (part('bar').hidden || !bar.key(event.key.toLowerCase())) return;
  event.preventDefault();
});

// ---- coming in

async function enter(code = '') {
  await signIn(code === 'token-expired' ? 'Your access has expired. Ask for a new link, or sign in again.' : undefined);
  room.retryNow();
}

/** Asks for a name, unless this browser has been told one. A reload comes back by itself. */
function begin() {
  const known = options.has('name') || memory.get('gateway.room', sessionStorage) === name;
  setText(part('title'), name);
  if (known) return join();
  part('lobby').hidden = false;
  setText(part('lobby-title'), `Join ${name}`);
  part('name').value = memory.get('gateway.name');
  part('name').focus();
  part('lobby').querySelector('form').onsubmit = (event) => {
    event.preventDefault();
    room.name = part('name').value.trim();
    memory.set('gateway.name', room.name);
    part('lobby').hidden = true;
    join();
  };
}

function join() {
  memory.set('gateway.room', name, sessionStorage);
  room.open();
  list();
}

globalThis.gatewayRoom = { room, publisher, tiles }; // for whoever looks into it by the console
takeToken().then((problem) => {
  if (problem) toast('The link wasn’t taken', problem.status === 401 ? 'It was used before, or has expired. Ask for a new one.' : problem.message);
  begin();
});

/**
 * The page of one stream: it is all player, so that every key is the player's, and its first frame is timed from the navigation.
 *
 * @module
 */
import { signIn, stay, takeToken } from './access.js';
import { About } from './about.js';
import './player.js';

const player = /** @type {import('./player.js').GatewayPlayer} */ (document.querySelector('gateway-player'));
const name = location.pathname.replace(/\/+$/, '').replace(/^.*\//, '');
const options = new URLSearchParams(location.search);

player.toggleAttribute('controls', options.get('controls') !== '0');
player.toggleAttribute('muted', options.get('muted') !== '0');
player.toggleAttribute('stats', options.has('stats'));
if (options.has('relay')) player.setAttribute('ice-transport-policy', 'relay');
player.rendition = options.get('rendition') ?? 'auto';
player.startedAt = 0;
const play = () => player.setAttribute('src', location.origin + location.pathname);
if (location.hash.includes('token=')) takeToken().then(play); // what is wrong with it the card to sign in says soon enough
else play();

player.addEventListener('error', async ({ detail: { code } }) => {
  if (!['unauthorized', 'token-expired'].includes(code) || self !== top) return; // in a frame the page around it sees to it
  await signIn(code === 'token-expired' ? 'Your access has expired. Ask for a new link, or sign in again.' : undefined);
  player.retryNow();
});
player.addEventListener('expiring', ({ detail: { expires } }) => self === top && stay(expires, () => player.renew()));
player.addEventListener('state', () => {
  document.title = `${player.stream?.title || decodeURIComponent(name)} · gateway`;
});
player.append(...new About(player, new URL(`../api/streams/${name}`, location.href)).elements);
document.addEventListener('keydown', (event) => player.handleKey(event));

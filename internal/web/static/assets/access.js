/**
 * Who is looking: a token from a link, a card to sign in, and the gateway's API behind them. What it learns it leaves with the gateway, as
 * a cookie that no script can read.
 *
 * @module
 */
import { element, setText } from './elements.js';

const answerWithin = 10_000;

/** The root of the gateway that this page came from. */
export const root = new URL(import.meta.url.replace(/assets\/[^]*$/, ''));

/** An answer that isn't a success. `code` is the gateway's, or empty; `status` 0: it didn't answer. */
export class Refusal extends Error {
  /** @param {number} status @param {string} code @param {string} message */
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

/**
 * Asks the gateway's API.
 *
 * @param {string} path from its root, such as "api/rooms"
 * @param {{ method?: string, body?: object }} [options]
 * @returns {Promise<any>} what it answers, or null; rejected with a Refusal
 */
export async function api(path, { method = 'GET', body } = {}) {
  let answer;
  try {
    answer = await fetch(new URL(path, root), {
      method,
      cache: 'no-store',
      signal: AbortSignal.timeout(answerWithin),
      ...(body ? { body: JSON.stringify(body), headers: { 'Content-Type': 'application/json' } } : {}),
    });
  } catch (err) {
    throw new Refusal(0, '', navigator.onLine ? `${location.host} doesn’t answer.` : 'This device is offline.', { cause: err });
  }
  const told = /json/.test(answer.headers.get('Content-Type') ?? '') ? await answer.json().catch(() => null) : null;
  if (!answer.ok) throw new Refusal(answer.status, told?.code ?? '', told?.detail || told?.message || told?.title || `The gateway answered ${answer.status}.`);
  return told;
}

/** From the least to the most, and how who has one is called. */
const roles = { viewer: 'a viewer', publisher: 'a guest', host: 'a host', admin: 'an admin' };

/** What a token of the gateway says it gives, as docs/access.md has the claims; nothing if it doesn't say. Nobody has checked it. @param {string} token */
function claimsOf(token) {
  try {
    return JSON.parse(new TextDecoder().decode(Uint8Array.from(atob(token.split('.')[1].replace(/-/g, '+').replace(/_/g, '/')), (c) => c.charCodeAt(0)))) ?? {};
  } catch {
    return {}; // the admin's own is none of these
  }
}

const listed = (claim) => [claim ?? []].flat();
/** Whether patterns reach all that others do, as far as the patterns show. @param {string[]} patterns @param {string[]} others */
const reach = (patterns, others) => patterns.includes('*') || others.every((other) => patterns.includes(other));

/** Whether who is signed in has anything that a token doesn't give: in what is allowed, where, or for how long. */
function hasMore(me, claims) {
  const order = Object.keys(roles);
  const rooms = listed(claims.rooms);
  const streams = listed(claims.streams);
  const ends = Math.min(claims.lasting ? Date.now() / 1000 + claims.lasting : claims.exp ?? Infinity, claims.until || Infinity) * 1000;
  return order.indexOf(me.role) > order.indexOf(claims.role)
    || (claims.can && me.can.some((action) => !claims.can.includes(action)))
    || (me.create && !claims.create)
    || !reach(rooms, me.rooms ?? [])
    || (streams.length > 0 && (!me.streams?.length || !reach(streams, me.streams)))
    || (me.expires || Infinity) > ends;
}

/** Whether who is signed in stays so: a link that gives less takes the place of nobody who hasn't agreed. @param {string} token */
async function stays(token) {
  const claims = claimsOf(token);
  if (!claims.role) return false;
  const me = await api('api/session').catch(() => null);
  if (!me || me.open || !hasMore(me, claims)) return false;
  const where = listed(claims.rooms).includes('*') ? '' : ` in ${listed(claims.rooms).map((room) => `“${room.replace(/\\(.)/g, '$1')}”`).join(', ')}`;
  const stay = element('button', { type: 'button', class: 'button', autofocus: '' }, 'Stay signed in');
  const take = element('button', { type: 'button', class: 'quiet' }, 'Use the link');
  const dialog = element('dialog', { class: 'sheet', role: 'alertdialog', 'aria-labelledby': 'less', 'aria-describedby': 'less-detail' },
    element('h2', { id: 'less' }, `You are signed in as ${me.name || roles[me.role]}`),
    element('p', { id: 'less-detail' }, `The link that you opened makes you ${roles[claims.role] ?? claims.role}${where} and signs you out of what you have now, in all windows of this browser.`),
    element('div', { class: 'answers' }, take, stay));
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.onclose = () => {
      dialog.remove();
      resolve(dialog.returnValue !== 'take');
    };
    stay.onclick = () => dialog.close();
    take.onclick = () => dialog.close('take');
  });
}

/**
 * Signs in by the token of the page's address (#token=…), if there is one, and takes it out of the address and the history. Who is signed
 * in with more than the token gives is asked first.
 *
 * @returns {Promise<Refusal?>} why it wasn't taken, or null
 */
export async function takeToken() {
  addEventListener('hashchange', () => /[#&]token=/.test(location.hash) && location.reload(), { once: true }); // a link into the page that is open
  const fragment = new URLSearchParams(location.hash.slice(1));
  const token = fragment.get('token');
  if (!token) return null;
  fragment.delete('token');
  const rest = fragment.toString();
  history.replaceState(history.state, '', location.pathname + location.search + (rest ? `#${rest}` : ''));
  if (await stays(token)) return null;
  try {
    await api('api/session', { method: 'POST', body: { token } });
    return null;
  } catch (err) {
    return err;
  }
}

/** Signs out. */
export function signOut() {
  return api('api/session', { method: 'DELETE' });
}

/** @type {Promise<boolean>?} the card that is open */
let open = null;

/**
 * Asks who is looking, until the gateway knows.
 *
 * @param {string} [reason] why it is asked
 * @returns {Promise<void>} resolved when somebody has signed in
 */
export async function signIn(reason = '') {
  while (!await card(reason, false)); // the one that is open may be one of stay's
}

/**
 * Has a session that is about to end go on: by what this browser has been signed in with meanwhile, else by a card, behind which all goes on.
 *
 * @param {number} expires when it ends, in Unix milliseconds
 * @param {() => Promise<number>} renew shows the gateway what the browser is signed in with, and tells when that ends
 * @returns {Promise<boolean>} whether it goes on
 */
export async function stay(expires, renew) {
  const goesOn = () => renew().then((ends) => ends > expires, () => false);
  if (await goesOn()) return true;
  const at = new Date(expires).toLocaleTimeString([], { timeStyle: 'short' });
  return await card(`Your access ends at ${at}. Sign in again and you stay, with all as it is.`, true) && goesOn();
}

/** Shows the card, or waits for the one that is open. @returns {Promise<boolean>} whether somebody has signed in */
function card(reason, later) {
  return (open ??= ask(reason, later).finally(() => { open = null; }));
}

function ask(reason, later) {
  const input = (id, label, attributes) => {
    const field = element('input', { id, ...attributes });
    return { field, row: element('label', { for: id }, element('span', {}, label), field) };
  };
  const user = input('sign-in-user', 'User', { autocomplete: 'username', autocapitalize: 'none', spellcheck: 'false' });
  const password = input('sign-in-password', 'Password', { type: 'password', autocomplete: 'current-password' });
  const token = input('sign-in-token', 'Token', { autocomplete: 'off', autocapitalize: 'none', spellcheck: 'false', placeholder: 'or a link that has one' });
  const byName = element('div', { class: 'fields' }, user.row, password.row);
  const byToken = element('div', { class: 'fields', hidden: '' }, token.row);
  const problem = element('p', { class: 'problem', role: 'alert' });
  const submit = element('button', { type: 'submit', class: 'button' }, 'Sign in');
  const other = element('button', { type: 'button', class: 'quiet' }, 'Use a token');
  const not = element('button', { type: 'button', class: 'quiet not-now', ...(later ? {} : { hidden: '' }) }, 'Not now');
  const form = element('form', { novalidate: '' }, byName, byToken, problem, submit, other, not);
  const dialog = element('dialog', { class: 'sheet sign-in', 'aria-labelledby': 'sign-in-title' },
    element('h2', { id: 'sign-in-title' }, 'Sign in'), element('p', {}, reason || 'This gateway is not open to everybody. Open the link that you were given, or sign in.'), form);
  other.onclick = () => {
    byToken.hidden = !byToken.hidden;
    byName.hidden = !byToken.hidden;
    setText(other, byToken.hidden ? 'Use a token' : 'Use a name and password');
    setText(problem, '');
    (byToken.hidden ? user : token).field.focus();
  };
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    const done = (signedIn) => {
      dialog.remove();
      resolve(signedIn);
    };
    not.onclick = () => done(false);
    dialog.addEventListener('cancel', (event) => {
      event.preventDefault();
      if (later) done(false); // else there is nothing behind it
    });
    form.onsubmit = async (event) => {
      event.preventDefault();
      const pasted = token.field.value.trim();
      const body = byToken.hidden
        ? { user: user.field.value.trim(), password: password.field.value }
        : { token: /[#&]token=([^&\s]+)/.exec(pasted)?.[1] ?? pasted };
      const missing = Object.entries(body).find(([, value]) => !value)?.[0];
      if (missing) {
        setText(problem, `The ${missing} is missing.`);
        return;
      }
      submit.disabled = true;
      try {
        await api('api/session', { method: 'POST', body });
        done(true);
      } catch (err) {
        setText(problem, err.status === 401 ? 'The gateway doesn’t know these. Nothing was changed.' : err.message);
      } finally {
        submit.disabled = false;
      }
    };
  });
}

/**
 * The menu of renditions, of a player or of a tile.
 *
 * @module
 */
import { element, setText } from './elements.js';
import { trackTexts } from './stats.js';

/**
 * Fills the menu, in place: it may be open.
 *
 * @param {HTMLSelectElement} menu
 * @param {import('./viewer.js').Track[]} renditions best first
 * @param {string} selected a name, or "auto"
 * @param {string} [playing] name of the one that plays, where the menu says it
 */
export function fillMenu(menu, renditions, selected, playing = '') {
  const { options } = menu;
  while (options.length > renditions.length + 1) options[options.length - 1].remove();
  [{ name: 'auto' }, ...renditions].forEach((track, i) => {
    const option = options[i] ?? menu.appendChild(element('option'));
    const plays = i > 0 && track.name === playing;
    option.value = track.name;
    option.classList.toggle('playing', plays);
    option.disabled = Boolean(track.refused);
    option.title = track.refused ?? '';
    const text = i ? [track.name, ...trackTexts(track)].join(', ') : 'Auto';
    setText(option, text + (track.refused ? ' (refused)' : plays ? ' (playing)' : ''));
  });
  menu.value = selected;
}

/**
 * Icons of the room page, as paths in a box of 24, drawn as lines.
 *
 * @module
 */
import { drawing } from './elements.js';

const paths = {
  camera: 'M3.5 8A1.5 1.5 0 0 1 5 6.5h9A1.5 1.5 0 0 1 15.5 8v8a1.5 1.5 0 0 1-1.5 1.5H5A1.5 1.5 0 0 1 3.5 16V8Zm12 2.7 5-3.2v9l-5-3.2',
  'camera-off': 'M3.5 4.5l16 16M7 6.5h7A1.5 1.5 0 0 1 15.5 8v5.5m0-2.8 5-3.2v9l-2.6-1.7M13.6 17.5H5A1.5 1.5 0 0 1 3.5 16V8c0-.6.4-1.2 1-1.4',
  microphone: 'M12 3.5a2.8 2.8 0 0 1 2.8 2.8v5.2a2.8 2.8 0 0 1-5.6 0V6.3A2.8 2.8 0 0 1 12 3.5ZM6 11.5a6 6 0 0 0 12 0M12 17.5v3',
  'microphone-off': 'M3.5 4.5l16 16M9.2 9.6v1.9a2.8 2.8 0 0 0 4.6 2.1m1-3.4V6.3a2.8 2.8 0 0 0-5.3-1.2M6 11.5a6 6 0 0 0 9.8 4.6m1.7-2c.3-.8.5-1.7.5-2.6M12 17.5v3',
  screen: 'M4.5 4.5h15A1.5 1.5 0 0 1 21 6v9.5a1.5 1.5 0 0 1-1.5 1.5h-15A1.5 1.5 0 0 1 3 15.5V6a1.5 1.5 0 0 1 1.5-1.5ZM8 20.5h8M12 13.5v-5m-2.3 2.2L12 8.4l2.3 2.3',
  devices: 'M4 7.5h6.5m4 0H20M4 16.5h2.5m4 0H20M12.5 5.5v4M8.5 14.5v4',
  chat: 'M6 5.5h12A1.5 1.5 0 0 1 19.5 7v8a1.5 1.5 0 0 1-1.5 1.5h-6.5L7 20.5v-4H6A1.5 1.5 0 0 1 4.5 15V7A1.5 1.5 0 0 1 6 5.5ZM8.5 9.5h7m-7 3h4.5',
  send: 'M4.5 11.8 19.5 5l-4.2 14.5-3.6-5.6-7.2-2.1ZM11.7 13.9 19.5 5',
  quality: 'M4 7.5h6.5m4 0H20M4 16.5h2.5m4 0H20M12.5 5.5v4M8.5 14.5v4',
  people: 'M9.2 11.2a3.2 3.2 0 1 0 0-6.4 3.2 3.2 0 0 0 0 6.4ZM3 19.2v-.7a4.3 4.3 0 0 1 4.3-4.3h3.8a4.3 4.3 0 0 1 4.3 4.3v.7M15.6 5a3.2 3.2 0 0 1 0 6.1m2.6 3.3a4.3 4.3 0 0 1 2.8 4.1v.7',
  share: 'M10 13.8a4 4 0 0 0 5.8.2l2.9-2.9a4 4 0 0 0-5.7-5.7l-1.4 1.4m2.4 3.4a4 4 0 0 0-5.8-.2l-2.9 2.9a4 4 0 0 0 5.7 5.7l1.4-1.4',
  leave: 'M3.6 14.9c-.7-.8-.8-2-.2-2.9 1.7-2.4 4.9-4 8.6-4s6.9 1.6 8.6 4c.6.9.5 2.1-.2 2.9l-.7.7a1.6 1.6 0 0 1-1.9.3l-2-1.1a1.6 1.6 0 0 1-.8-1.6l.1-.7a11 11 0 0 0-6.2 0l.1.7c.1.6-.2 1.3-.8 1.6l-2 1.1a1.6 1.6 0 0 1-1.9-.3l-.7-.7Z',
  more: 'M5.5 12h.01M12 12h.01M18.5 12h.01',
  lock: 'M6.5 10.5h11A1.5 1.5 0 0 1 19 12v7a1.5 1.5 0 0 1-1.5 1.5h-11A1.5 1.5 0 0 1 5 19v-7a1.5 1.5 0 0 1 1.5-1.5ZM8 10.5V7.6a4 4 0 0 1 8 0v2.9',
  unlock: 'M6.5 10.5h11A1.5 1.5 0 0 1 19 12v7a1.5 1.5 0 0 1-1.5 1.5h-11A1.5 1.5 0 0 1 5 19v-7a1.5 1.5 0 0 1 1.5-1.5ZM8 10.5V7.6a4 4 0 0 1 7.8-1.2',
  enlarge: 'M13.5 10.5 20 4m-5.5 0H20v5.5M10.5 13.5 4 20m5.5 0H4v-5.5',
  reduce: 'M20 4l-6.5 6.5m0-5.5v5.5H19M4 20l6.5-6.5m0 5.5v-5.5H5',
  fullscreen: 'M4 9V5.5A1.5 1.5 0 0 1 5.5 4H9m6 0h3.5A1.5 1.5 0 0 1 20 5.5V9m0 6v3.5a1.5 1.5 0 0 1-1.5 1.5H15m-6 0H5.5A1.5 1.5 0 0 1 4 18.5V15',
  sound: 'M4 9.5v5h3.5L12 19V5L7.5 9.5H4Zm11.5-.5a4.2 4.2 0 0 1 0 6M18 6.5a7.8 7.8 0 0 1 0 11',
  close: 'M6 6l12 12M18 6 6 18',
  host: 'M4 17.5h16M4.5 7.5l3.6 4L12 5.5l3.9 6 3.6-4-1.2 7H5.7l-1.2-7Z',
  move: 'M4.5 12h14M13 6.5l5.5 5.5-5.5 5.5',
  remove: 'M9.2 11.2a3.2 3.2 0 1 0 0-6.4 3.2 3.2 0 0 0 0 6.4ZM3 19.2v-.7a4.3 4.3 0 0 1 4.3-4.3h3.8a4.3 4.3 0 0 1 4.3 4.3v.7M16 9.5h5',
  copy: 'M9.5 8.5h9A1.5 1.5 0 0 1 20 10v9a1.5 1.5 0 0 1-1.5 1.5h-9A1.5 1.5 0 0 1 8 19v-9a1.5 1.5 0 0 1 1.5-1.5ZM16 8.5V5a1.5 1.5 0 0 0-1.5-1.5h-9A1.5 1.5 0 0 0 4 5v9a1.5 1.5 0 0 0 1.5 1.5H8',
};

/** @param {keyof paths} name @returns {SVGElement} */
export function icon(name) {
  return drawing('svg', {
    class: 'icon', viewBox: '0 0 24 24', fill: 'none', stroke: 'currentColor', 'stroke-width': name === 'more' ? '3' : '1.75', 'stroke-linecap': 'round', 'stroke-linejoin': 'round',
    'aria-hidden': 'true',
  }, drawing('path', { d: paths[name] }));
}

/** Shows another icon in an element that has one. @param {Element} holder @param {keyof paths} name */
export function setIcon(holder, name) {
  holder.querySelector('svg.icon path').setAttribute('d', paths[name]);
}

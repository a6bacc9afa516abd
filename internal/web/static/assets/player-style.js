/**
 * The player's own style sheet: adopted by its shadow root, so that a page needs no stylesheet and no CSP exception for it.
 *
 * @module
 */
export const style = new CSSStyleSheet();

style.replaceSync(`
:host {
  --gateway-accent: #4fd1ae;
  --gateway-text: #f2f4f6;
  --gateway-muted: #a9b2bb;
  --gateway-surface: #15181cf2;
  display: block;
  position: relative;
  overflow: hidden;
  aspect-ratio: 16 / 9;
  container-type: size;
  background: #0b0d0f;
  color: var(--gateway-text);
  color-scheme: dark;
  font: 400 1rem/1.45 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
  -webkit-text-size-adjust: 100%;
}
:host([hidden]) { display: none; }
:host(:fullscreen) { aspect-ratio: auto; width: 100%; height: 100%; }
*, *::before, *::after { box-sizing: border-box; }
[hidden] { display: none !important; }

/* text grows with the player, from a phone to a wall */
.surface { position: absolute; inset: 0; outline: none; font-size: clamp(1rem, .6rem + .5cqw, 2rem); }
.surface.idle.picture { cursor: none; }
video, canvas { position: absolute; inset: 0; width: 100%; height: 100%; object-fit: contain; display: block; }
canvas { pointer-events: none; }

/* what goes on, in words */
.notice {
  position: absolute; inset: 0; display: grid; place-items: center; padding: 4em 1.25em;
  pointer-events: none; transition: opacity .25s; background: #0b0d0f;
}
.picture .notice { background: #0b0d0f8c; }
.picture .notice:not(.small) > div { padding: 1.5em 2em; border-radius: 1em; background: var(--gateway-surface); }
.notice.quiet { opacity: 0; visibility: hidden; transition: none; }
.notice.soon > div { animation: appear .3s .5s both; }
@keyframes appear { from { opacity: 0; } }
:host(:not([controls])) .bar { display: none; }
.notice > div { display: grid; justify-items: center; gap: .5em; max-width: 34em; text-align: center; pointer-events: auto; }
.mark { width: 2.5em; height: 2.5em; color: var(--gateway-muted); margin-bottom: .25em; }
.ring { display: none; opacity: .2; }
.busy .ring { display: inline; }
.fault .mark { color: #f0a35e; }
.busy .mark { color: var(--gateway-accent); animation: turn 1.1s linear infinite; }
@keyframes turn { to { transform: rotate(1turn); } }
.notice h2 { margin: 0; font-size: 1.25em; font-weight: 600; letter-spacing: -.01em; text-wrap: balance; }
.notice p { margin: 0; color: #c6cdd4; text-wrap: pretty; overflow-wrap: anywhere; }
.notice .next { font-size: .875em; color: var(--gateway-muted); font-variant-numeric: tabular-nums; }
.notice p:empty { display: none; }
.notice button { margin-top: .75em; }
.notice.small { place-items: start center; padding: 4.25em 1em; background: none; }
.notice.small > div { display: flex; align-items: baseline; gap: .4em; padding: .4em 1em; border-radius: 2em; background: var(--gateway-surface); }
.notice.small .mark { display: none; }
.notice.small h2 { font-size: 1em; }

/* bars */
.bar {
  position: absolute; left: 0; right: 0; display: flex; align-items: center; gap: .25em; padding: .75em;
  transition: opacity .25s, visibility .25s; pointer-events: none;
}
.bar > * { pointer-events: auto; }
.top { top: 0; padding-bottom: 2.5em; gap: .75em; background: linear-gradient(#000a, #0000); }
.bottom { bottom: 0; padding-top: 2.5em; background: linear-gradient(#0000, #000a); }
.bar .space { flex: 1; }
.idle .bar:not(:has(:focus-visible)) { opacity: 0; }
.idle .bar.call { opacity: 1; background: none; }
.idle .bar.call > :not(.mute) { opacity: 0; }
.name { min-width: 0; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; font-weight: 600; text-shadow: 0 1px 2px #0008; padding: .35em 0; }
.badge {
  display: inline-flex; align-items: center; gap: .45em; flex: none; padding: .2em .7em; border-radius: 2em;
  background: var(--gateway-surface); font-size: .8125em; font-weight: 600;
}
.badge::before { content: ""; width: .55em; height: .55em; border-radius: 50%; background: var(--gateway-muted); }
.badge.live::before { background: var(--gateway-accent); }
.badge.wait::before { background: #f0c05e; }
.badge.fault::before { background: #f0805e; }

button {
  appearance: none; border: 0; margin: 0; font: inherit; color: inherit; cursor: pointer;
  display: inline-flex; align-items: center; justify-content: center; gap: .5em;
  min-width: 2.75em; min-height: 2.75em; padding: .5em; border-radius: .75em; background: transparent;
}
.bar button:hover { background: #fff2; }
button:focus-visible { outline: 2px solid var(--gateway-accent); outline-offset: -2px; }
button[aria-pressed="true"] { color: var(--gateway-accent); }
button svg { width: 1.5em; height: 1.5em; flex: none; }
.bar button { filter: drop-shadow(0 1px 2px #0008); }
.solid, .bar.call .mute { background: #f2f4f6; color: #14171a; font-weight: 600; padding: .5em 1.1em; border-radius: 2em; filter: none; }
.solid:hover, .bar.call .mute:hover { background: #fff; }
.solid:focus-visible, .bar.call .mute:focus-visible { outline-color: var(--gateway-accent); outline-offset: 2px; }
.mute span { display: none; }
.bar.call .mute span { display: inline; }

/* the menu is the browser's own, under a look of ours */
.quality { position: relative; display: inline-flex; align-items: center; gap: .4em; min-height: 2.75em; padding: .5em .75em; border-radius: .75em; filter: drop-shadow(0 1px 2px #0008); }
.quality:hover { background: #fff2; }
.quality:has(:focus-visible) { outline: 2px solid var(--gateway-accent); outline-offset: -2px; }
.quality svg { width: 1.5em; height: 1.5em; flex: none; }
.quality span { max-width: 9em; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; font-size: .875em; font-weight: 600; }
.quality select { position: absolute; inset: 0; width: 100%; height: 100%; margin: 0; border: 0; font: inherit; font-size: max(1rem, .875em); opacity: 0; cursor: pointer; }
.quality option { background: #1b1f24; color: var(--gateway-text); }
.quality .playing { font-weight: 600; }

/* what the page around has to say; over the bar, whether that is seen or not */
.remark { position: absolute; left: .75em; right: .75em; bottom: 4.75em; display: flex; pointer-events: none; }
.remark ::slotted(*) { pointer-events: auto; }
:host(:not([controls])) .remark { display: none; }

/* the numbers */
.panel {
  --sent: #4fd1ae;
  --target: #f2f4f6;
  --estimate: #8fb8ff;
  --queue: #c9a3ff;
  --round-trip: #ecdcff;
  --loss: #f0a35e;
  position: absolute; top: 4em; right: .75em; width: min(26em, 100% - 1.5em); max-height: calc(100% - 8.5em); overflow: auto;
  padding: .75em 1em; border-radius: .875em; background: var(--gateway-surface); font-size: .8125em; scrollbar-width: thin; scrollbar-color: #ffffff40 #0000;
  font-variant-numeric: tabular-nums;
}
.panel:focus-visible, .panel :focus-visible { outline: 2px solid var(--gateway-accent); }
.panel h2 { display: flex; align-items: baseline; justify-content: space-between; margin: 1.1em 0 .35em; font-size: 1em; font-weight: 600; }
.panel dl { margin: 0; }
.panel dt { color: var(--gateway-muted); }
.panel dd { margin: 0; overflow-wrap: anywhere; }
.numbers div { display: grid; grid-template-columns: 7.5em 1fr auto; align-items: center; gap: .5em; min-height: 1.85em; border-top: 1px solid #ffffff14; }
.numbers svg { width: 5em; height: 1.35em; overflow: visible; }
.numbers polyline { fill: none; stroke: var(--gateway-accent); stroke-width: 1.25; vector-effect: non-scaling-stroke; stroke-linejoin: round; }

/* what the network carried, and what was decided */
.panel .quality-view > :first-child, .quality-view[hidden] + h2 { margin-top: 0; }
.moment { color: var(--gateway-muted); font-weight: 400; }
.legend { display: grid; grid-template-columns: repeat(3, 1fr); gap: .15em .75em; }
.legend dt { display: flex; align-items: center; gap: .45em; white-space: nowrap; }
.legend dd { font-weight: 600; }
.key { width: 1.4em; height: .7em; flex: none; overflow: visible; }
.graph { display: block; width: 100%; height: 19em; margin-top: .25em; border-radius: .3em; touch-action: pan-y; cursor: crosshair; font-size: .9em; }
.graph text { fill: var(--gateway-muted); font-size: .875em; }
.times text { text-anchor: middle; }
.times .oldest { text-anchor: start; }
.times .newest { text-anchor: end; }
.graph .label { fill: var(--gateway-text); }
.grid { stroke: #ffffff1f; fill: none; shape-rendering: crispEdges; }
.line { fill: none; stroke: var(--colour); stroke-width: max(1.5px, .1em); stroke-linejoin: round; stroke-linecap: round; }
.line.dashed { stroke-dasharray: .32em .28em; }
.line.bars { stroke-width: .16em; stroke-linecap: butt; }
.fill { fill: var(--colour); fill-opacity: .28; }
.key .fill { fill-opacity: .6; }
.sent { --colour: var(--sent); }
.target { --colour: var(--target); }
.estimate { --colour: var(--estimate); }
.queue { --colour: var(--queue); }
.roundTrip { --colour: var(--round-trip); }
.loss { --colour: var(--loss); }
.rendition { fill: #2f6d5e; }
.rendition.second { fill: #6b5a2c; }
.rendition.third { fill: #6e4332; }
.cursor { stroke: #fff; stroke-width: 1; shape-rendering: crispEdges; }
.hair { stroke: #ffffff3d; stroke-dasharray: 1 3; fill: none; }
.hair.near { stroke: #ffffffa0; }
.mark-of { fill: #c6cdd4; }
.mark-of.up, .mark-of.resume { fill: var(--gateway-accent); }
.mark-of.down, .mark-of.pause { fill: #f0c05e; }
.graph .mark-of { stroke: #15181c; stroke-width: 2; paint-order: stroke; }
.decisions { list-style: none; margin: 0 -.4em; padding: 0; max-height: 12em; overflow: auto; scrollbar-width: thin; scrollbar-color: #ffffff40 #0000; border-radius: .35em; }
.decisions li { padding: .15em .4em .15em 1.7em; border-radius: .35em; text-wrap: pretty; overflow-wrap: anywhere; }
.decisions li.near { background: #ffffff1a; }
.decisions svg { float: left; width: .75em; height: .75em; margin: .36em 0 0 -1.3em; }
.decisions time { margin-right: .35em; color: var(--gateway-muted); }
.decisions b { display: inline-block; font-weight: 600; } /* a rate is not cut in two */
.none { margin: 0; color: var(--gateway-muted); }
.panel table { width: 100%; border-collapse: collapse; table-layout: fixed; }
.panel th, .panel td { width: 3.2em; padding: .1em 0; text-align: right; font-weight: 400; }
.panel thead th { color: var(--gateway-muted); }
.panel th:first-child { text-align: left; color: var(--gateway-muted); width: 7.5em; }
.panel td:last-child { width: auto; padding-left: 1.2em; }
.total > * { border-top: 1px solid #ffffff24; }
.panel .total th { color: inherit; font-weight: 600; }
.total td { font-weight: 600; }
.bar-of-stage { display: block; width: 100%; height: .8em; }
.median { fill: var(--estimate); }
.rest { fill: var(--estimate); fill-opacity: .45; }

/* the keys */
dialog {
  border: 0; border-radius: .875em; padding: 1.25em 1.5em; max-width: min(24em, 100% - 2em); margin: auto;
  background: #1b1f24; color: var(--gateway-text); box-shadow: 0 1em 4em #000a; font-size: 1em;
}
dialog::backdrop { background: #0009; }
dialog h2 { margin: 0 0 .75em; font-size: 1.125em; font-weight: 600; }
dialog dl { display: grid; grid-template-columns: auto 1fr; gap: .55em 1em; align-items: center; margin: 0 0 1.25em; }
dialog dd { margin: 0; }
kbd { display: inline-block; min-width: 1.9em; text-align: center; padding: .1em .45em; border: 1px solid #ffffff3d; border-radius: .4em; font: inherit; font-size: .875em; }
dialog button { width: 100%; }

.spoken { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }

@container (max-width: 34rem) {
  .panel { top: auto; bottom: 5.75em; left: .75em; width: auto; max-height: min(62%, 30em); }
  .bar { padding-left: .5em; padding-right: .5em; }
  .quality span { display: none; }
  .remark { top: 4.25em; bottom: auto; }
}
@container (max-width: 24rem) {
  .help { display: none; }
}
@container (max-height: 16rem) {
  .notice { padding: .75em; font-size: .875em; }
  .picture .notice:not(.small) > div { padding: .5em 1em; }
  .mark { width: 1.5em; height: 1.5em; margin: 0; }
  .panel { top: .5em; bottom: .5em; max-height: none; }
}
@media (prefers-reduced-motion: reduce) {
  * { transition: none !important; }
  .busy .mark { animation: none; }
}
@media (forced-colors: active) {
  .badge, .panel, dialog, .solid, .quality { border: 1px solid; }
  .numbers polyline, .line, .cursor { stroke: CanvasText; }
  .mark-of, .median, .fill { fill: CanvasText; }
  .rendition { fill: Canvas; stroke: CanvasText; }
  .graph .label { fill: CanvasText; }
}
`);

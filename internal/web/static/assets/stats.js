/**
 * The numbers of a viewer: getStats of its connection turned into what people ask for.
 *
 * @module
 */

/**
 * What a viewer measured in the last interval. A number that this browser doesn't tell is null.
 *
 * @typedef {object} Stats
 * @property {string} codec such as "H.264"; empty until it is known
 * @property {number?} width pixels
 * @property {number?} height pixels
 * @property {number?} fps frames a second that were decoded
 * @property {number?} bitrate bit/s of all media that came
 * @property {number?} roundTrip milliseconds
 * @property {number?} loss 0 to 1, of the packets of the interval
 * @property {number?} jitterBuffer milliseconds that a video frame waited in the jitter buffer
 * @property {number?} decodeTime milliseconds a frame
 * @property {number} freezes how often the picture stood still, since the session began
 * @property {number} frozen milliseconds that it stood still, since the session began
 * @property {number} framesDecoded since the session began
 * @property {number} framesDropped since the session began
 * @property {number} framesReceived since the session began
 * @property {number} packetsLost since the session began
 * @property {string} audioCodec such as "Opus"; empty without audio
 * @property {string} local type of the chosen local candidate: host, srflx, prflx, relay
 * @property {string} remote type of the chosen remote candidate
 * @property {string} transport "udp" or "tcp"
 * @property {string} connection state of the RTCPeerConnection
 * @property {number?} firstFrame milliseconds to the first frame
 */

const names = { h264: 'H.264', h265: 'H.265', vp8: 'VP8', vp9: 'VP9', av1: 'AV1', opus: 'Opus', pcmu: 'G.711 µ-law', pcma: 'G.711 A-law' };

/**
 * A codec's name as people write it.
 *
 * @param {string} codec "h264", "video/H264" …
 * @returns {string}
 */
export function codecName(codec = '') {
  const name = codec.toLowerCase().replace(/^.*\//, '');
  return names[name] ?? name.toUpperCase();
}

/**
 * A bitrate as people write it.
 *
 * @param {number} bps bit/s
 * @returns {string}
 */
export function bitrateText(bps) {
  if (bps >= 995_000) return `${(bps / 1e6).toFixed(bps < 9_950_000 ? 1 : 0)} Mbit/s`;
  return `${Math.round(bps / 1000)} kbit/s`;
}

/**
 * A time as people write it.
 *
 * @param {number} ms milliseconds
 * @returns {string}
 */
export function msText(ms) {
  return `${ms < 10 ? Math.round(ms * 10) / 10 : Math.round(ms)} ms`;
}

/**
 * A share as people write it.
 *
 * @param {number} share 0 to 1
 * @returns {string}
 */
export function percentText(share) {
  return `${(share * 100).toFixed(share < 0.1 ? 1 : 0)} %`;
}

/**
 * A track's numbers as people write them.
 *
 * @param {import('./viewer.js').Track} track
 * @returns {string[]}
 */
export function trackTexts({ codec, width, height, fps, bitrate }) {
  return [
    codecName(codec),
    width && height ? `${width} × ${height}` : '',
    fps ? `${Math.round(fps * 10) / 10} fps` : '',
    bitrate ? bitrateText(bitrate) : '',
  ].filter(Boolean);
}

/** Reads one connection again and again; rates are of the time between two readings. */
export class Meter {
  #pc;
  #last = null;

  /** @param {RTCPeerConnection} pc */
  constructor(pc) {
    this.#pc = pc;
  }

  /** @returns {Promise<Stats>} */
  async read() {
    const report = await this.#pc.getStats();
    const by = (type, kind) => [...report.values()].filter((s) => s.type === type && (!kind || s.kind === kind));
    // one that ended may be listed still
    const fresh = (s) => s.lastPacketReceivedTimestamp ?? 0;
    const [video = {}] = by('inbound-rtp', 'video').sort((a, b) => fresh(b) - fresh(a) || (b.bytesReceived ?? 0) - (a.bytesReceived ?? 0));
    const [audio = {}] = by('inbound-rtp', 'audio');
    const pair = chosenPair(report) ?? {};
    const now = {
      at: video.timestamp ?? audio.timestamp ?? performance.now(),
      id: video.id,
      bytes: (video.bytesReceived ?? 0) + (audio.bytesReceived ?? 0),
      frames: video.framesDecoded ?? 0,
      received: video.packetsReceived ?? 0,
      lost: video.packetsLost ?? 0,
      waited: video.jitterBufferDelay ?? 0,
      emitted: video.jitterBufferEmittedCount ?? 0,
      decode: video.totalDecodeTime ?? 0,
    };
    const last = this.#last?.id === now.id ? this.#last : null;
    this.#last = now;
    const seconds = last ? (now.at - last.at) / 1000 : 0;
    const since = (key) => (last ? now[key] - last[key] : 0);
    const ratio = (part, whole) => (whole > 0 ? part / whole : null);
    return {
      codec: codecName(report.get(video.codecId)?.mimeType),
      width: video.frameWidth ?? null,
      height: video.frameHeight ?? null,
      fps: ratio(since('frames'), seconds),
      bitrate: ratio(since('bytes') * 8, seconds),
      roundTrip: pair.currentRoundTripTime === undefined ? null : pair.currentRoundTripTime * 1000,
      loss: ratio(Math.max(0, since('lost')), since('received') + Math.max(0, since('lost'))),
      jitterBuffer: ratio(since('waited') * 1000, since('emitted')),
      decodeTime: ratio(since('decode') * 1000, since('frames')),
      freezes: video.freezeCount ?? 0,
      frozen: (video.totalFreezesDuration ?? 0) * 1000,
      framesDecoded: now.frames,
      framesDropped: video.framesDropped ?? 0,
      framesReceived: video.framesReceived ?? 0,
      packetsLost: now.lost,
      audioCodec: codecName(report.get(audio.codecId)?.mimeType),
      local: report.get(pair.localCandidateId)?.candidateType ?? '',
      remote: report.get(pair.remoteCandidateId)?.candidateType ?? '',
      transport: report.get(pair.localCandidateId)?.relayProtocol ?? report.get(pair.localCandidateId)?.protocol ?? '',
      connection: this.#pc.connectionState,
      firstFrame: null,
    };
  }
}

/** The candidate pair that carries the media: by the transport, or by Firefox's mark on the pair. */
function chosenPair(report) {
  let pair = null;
  for (const s of report.values()) {
    if (s.type === 'transport' && s.selectedCandidatePairId) return report.get(s.selectedCandidatePairId);
    if (s.type === 'candidate-pair' && (s.selected || (s.nominated && s.state === 'succeeded'))) pair ??= s;
  }
  return pair;
}

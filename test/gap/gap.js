// gap.mark() begins to count; gap.since(ms) → Promise of gap.Seen after ms more. For the gateway's watch page.
//
// Frames are noted from the page's first video on. An interval is that between the presentation times of two frames; where the script
// missed frames in between (presentedFrames tells), it is shared among them, because the viewer saw those.
globalThis.gap = (() => {
  let frames = [], marked, sockets = 0
  const Socket = globalThis.WebSocket
  globalThis.WebSocket = class extends Socket {
    constructor(...args) { super(...args); sockets++ }
  }
  const player = () => document.querySelector('gateway-player')
  let noted
  const note = () => {
    const video = player().video
    if (noted === video) return
    noted = video
    const on = (_, { presentationTime, presentedFrames }) => {
      const last = frames.at(-1)
      frames.push({ at: presentationTime, presented: presentedFrames, interval: last ? (presentationTime - last.at) / (presentedFrames - last.presented) : 0 })
      if (frames.length > 20_000) frames = frames.slice(-10_000)
      video.requestVideoFrameCallback(on)
    }
    video.requestVideoFrameCallback(on)
  }
  const wait = (ms) => new Promise((done) => setTimeout(done, ms))
  const median = (values) => values.toSorted((a, b) => a - b)[values.length >> 1] ?? 0
  const intervals = (from, to) => frames.filter(({ at, interval }) => at > from && at <= to && interval > 0).map(({ interval }) => interval)

  return {
    // at least a second of frames is known from before
    async mark() {
      note()
      await wait(1200)
      const { peerConnection, video } = player()
      peerConnection.marked ??= Math.random()
      video.marked ??= Math.random()
      marked = { at: performance.now(), connection: peerConnection.marked, video: video.marked }
    },
    async since(ms) {
      await wait(ms)
      const now = performance.now()
      const { peerConnection, video } = player()
      const stats = await peerConnection.getStats()
      const inbound = [...stats.values()].filter((s) => s.type === 'inbound-rtp' && s.kind === 'video')
      const newest = inbound.toSorted((a, b) => (b.lastPacketReceivedTimestamp ?? 0) - (a.lastPacketReceivedTimestamp ?? 0))[0]
      const seen = intervals(marked.at, now)
      const last = frames.at(-1)?.at ?? marked.at
      return {
        frames: seen.length,
        longest: Math.max(...seen, now - last), // what stands still now counts too
        usual: Math.max(median(intervals(marked.at - 1000, marked.at)), median(intervals(now - 1000, now))),
        same: peerConnection.marked === marked.connection && video.marked === marked.video && peerConnection.connectionState === 'connected',
        joins: sockets,
        width: video.videoWidth,
        codec: stats.get(newest?.codecId)?.mimeType ?? '',
      }
    },
  }
})()

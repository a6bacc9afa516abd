// measureSync(video, connection, settle, ms) → Promise of avsync.heard: plays for `settle` milliseconds, then notes flashes and beeps
// for `ms`. For Chromium.
//
// All times are on the clock of performance.now(). A flash is the first frame of other colours, at that frame's expectedDisplayTime. A
// beep is the first loud sample, when it left the browser's jitter buffer, which is when the video element hands it to the loudspeaker;
// the loudspeaker's own latency is added. WebAudio's graph would add buffers that an element hasn't.
globalThis.measureSync = async (video, connection, settle, ms) => {
  const context = new AudioContext()
  await context.resume() // its latency is known while it runs

  const beeps = []
  const [track] = video.srcObject.getAudioTracks()
  const reader = new MediaStreamTrackProcessor({ track }).readable.getReader()
  const listen = async () => {
    let loud = -Infinity
    for (;;) {
      const { value, done } = await reader.read()
      if (done) return
      const now = performance.now()
      const samples = new Float32Array(value.numberOfFrames)
      value.copyTo(samples, { planeIndex: 0, format: 'f32-planar' })
      const { sampleRate } = value
      value.close()
      const first = samples.findIndex((sample) => Math.abs(sample) > 0.1)
      if (first < 0) continue
      if (now - loud > 500) beeps.push(now + 1000 * first / sampleRate)
      loud = now
    }
  }

  const flashes = []
  const canvas = Object.assign(document.createElement('canvas'), { width: 1, height: 1 })
  const pixel = canvas.getContext('2d', { willReadFrequently: true, alpha: false })
  let bright, last, watching = true
  const onFrame = (_, frame) => {
    pixel.drawImage(video, 0, 0, 8, 8, 0, 0, 1, 1)
    const now = pixel.getImageData(0, 0, 1, 1).data[1] > 127
    // only where no frame was missed just before: that one could have been the first
    const next = last && frame.rtpTimestamp - last.rtpTimestamp < 90000 / 30 * 1.5 && frame.presentedFrames === last.presentedFrames + 1
    if (next && now !== bright) flashes.push(frame.expectedDisplayTime)
    bright = now
    last = frame
    if (watching) video.requestVideoFrameCallback(onFrame)
  }

  const inbound = async () => {
    const result = {}
    for (const s of (await connection.getStats()).values()) if (s.type === 'inbound-rtp') result[s.kind] = s
    return result
  }
  const wait = (time) => new Promise((done) => setTimeout(done, time))

  listen()
  video.requestVideoFrameCallback(onFrame)
  await wait(settle)
  const begin = performance.now()
  const before = await inbound()
  await wait(ms)
  const after = await inbound()
  watching = false
  reader.cancel()
  const latency = 1000 * context.outputLatency
  await context.close()

  const waited = (kind) => {
    const delay = after[kind].jitterBufferDelay - before[kind].jitterBufferDelay
    return 1000 * delay / (after[kind].jitterBufferEmittedCount - before[kind].jitterBufferEmittedCount)
  }
  return {
    flashes: flashes.filter((at) => at >= begin),
    beeps: beeps.filter((at) => at >= begin).map((at) => at + latency),
    latency, audio: waited('audio'), video: waited('video'),
    said: after.audio.estimatedPlayoutTimestamp - after.video.estimatedPlayoutTimestamp,
  }
}

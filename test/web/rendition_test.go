package web_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// ladder is a stream with renditions: two in one codec, one in another, and one
// that no browser here decodes.
var ladder = stream{Name: "front-door", Title: "Front door", State: "live", Tracks: []track{
	{Name: "high", Kind: "video", Codec: "vp8", Width: 640, Height: 360, FPS: 30, Bitrate: 800_000},
	{Name: "low", Kind: "video", Codec: "vp8", Width: 320, Height: 180, FPS: 15, Bitrate: 200_000},
	{Name: "other", Kind: "video", Codec: "h264", Width: 480, Height: 270, FPS: 30, Bitrate: 500_000},
	{Name: "hevc", Kind: "video", Codec: "h265", Width: 640, Height: 360, FPS: 30, Bitrate: 500_000},
	audio,
}}

const menu = shadow + ".querySelector('select')"

// pick chooses in the menu as a hand does.
func (w *world) pick(t *testing.T, rendition string) {
	t.Helper()
	w.eval(t, fmt.Sprintf("((menu) => { menu.value = %q; menu.dispatchEvent(new Event('change', { bubbles: true })); })(%s)", rendition, menu), nil)
}

// mark notes the running connection, and counts from here on what a viewer must
// not see: another connection or video element, and moments without a picture.
const mark = `(() => {
	const player = document.querySelector('gateway-player');
	window.marked = { pc: player.peerConnection, video: player.video, black: 0, looks: 0, frames: 0 };
	const canvas = document.createElement('canvas');
	canvas.width = canvas.height = 8;
	const context = canvas.getContext('2d', { willReadFrequently: true });
	const look = () => {
		const still = player.shadowRoot.querySelector('canvas');
		context.clearRect(0, 0, 8, 8);
		context.drawImage(still.hidden ? player.video : still, 0, 0, 8, 8);
		marked.looks++;
		if (!context.getImageData(0, 0, 8, 8).data.some((value, i) => i % 4 < 3 && value > 60)) marked.black++;
		requestAnimationFrame(look);
	};
	look();
	const count = () => { marked.frames++; player.video.requestVideoFrameCallback(count); };
	count();
})()`

const kept = "marked.pc === " + player + ".peerConnection && marked.video === " + player + ".video && marked.pc.connectionState === 'connected'"

func (w *world) neverBlack(t *testing.T) {
	t.Helper()
	var seen struct{ Black, Looks, Frames int }
	w.eval(t, "marked", &seen)
	if seen.Black > 0 || seen.Looks < 10 {
		t.Errorf("in %d of %d looks there was no picture", seen.Black, seen.Looks)
	}
}

// A camera's own H.264 may have B-frames: nobody is given it, and all are told why.
func TestRefusedRenditionIsShownWithItsReason(t *testing.T) {
	s := start(t)
	refused := ladder
	refused.Tracks = slices.Clone(ladder.Tracks)
	refused.Tracks[1].Refused = "browsers don't play it: it has B-frames"
	s.set(refused)
	w := browse(t, s, "/watch/front-door?stats", false)
	w.until(t, player+".state === 'playing' && "+menu+".options[2].disabled && "+menu+".options[2].text.endsWith('(refused)')")
	w.until(t, "(document.querySelector('.settings').open = true) && document.querySelector('.settings').innerText.includes('Rendition low is refused: browsers don\\'t play it: it has B-frames')")
	s.set(ladder)
	w.until(t, "!"+menu+".options[2].disabled && !document.querySelector('.settings').innerText.includes('refused')")
}

func TestMenuOffersWhatTheBrowserDecodes(t *testing.T) {
	s := start(t)
	s.set(ladder)
	w := browse(t, s, "/watch/front-door", false)
	w.until(t, player+".state === 'playing' && "+menu+".checkVisibility()")
	var options []string
	w.eval(t, "[..."+menu+".options].map((o) => o.text)", &options)
	want := []string{"Auto", "high, VP8, 640 × 360, 30 fps, 800 kbit/s (playing)", "low, VP8, 320 × 180, 15 fps, 200 kbit/s", "other, H.264, 480 × 270, 30 fps, 500 kbit/s"}
	if !slices.Equal(options, want) {
		t.Errorf("the menu has %q, want %q", options, want)
	}
	w.eval(t, mark, nil)
	w.pick(t, "low")
	w.until(t, player+".video.videoWidth === 320 && "+menu+".selectedOptions[0].text.endsWith('(playing)') && "+menu+".value === 'low'")
	w.until(t, player+".rendition === 'low' && "+player+".renditions.find((r) => r.playing).name === 'low' && "+kept)
	w.pick(t, "auto")
	w.until(t, player+".video.videoWidth === 640 && !"+player+".hasAttribute('rendition')")

	// as a page that embeds the player does it, refused and taken
	w.eval(t, "(window.choices = [], "+player+".addEventListener('rendition', (e) => choices.push(e.detail.selected + ':' + e.detail.rendition)), "+player+".rendition = 'nothing', 0)", nil)
	w.until(t, notice+"?.innerText.includes('There is no rendition nothing.') && "+player+".rendition === 'auto' && "+menu+".value === 'auto'")
	w.eval(t, "("+player+".rendition = 'hevc', 0)", nil)
	w.until(t, notice+"?.innerText.includes('The quality stays as it was') && "+notice+".innerText.includes('video/H265')")
	w.eval(t, "("+player+".rendition = 'low', 0)", nil)
	w.until(t, "choices.at(-1) === 'low:low' && "+player+".video.videoWidth === 320")
	w.until(t, "!"+notice) // the words go by themselves
	w.neverBlack(t)

	// what was chosen lasts over a lost socket
	s.drop()
	w.until(t, "marked.pc !== "+player+".peerConnection && "+player+".state === 'playing' && "+player+".video.videoWidth === 320")
	s.mu.Lock()
	asked := s.asked
	s.mu.Unlock()
	if want := []string{"", "low", "auto", "nothing", "hevc", "low", "low"}; !slices.Equal(asked, want) {
		t.Errorf("asked for %q, want %q", asked, want)
	}

	one := ladder
	one.Tracks = []track{ladder.Tracks[1], ladder.Tracks[3], audio} // one that it decodes
	s.set(one)
	w.until(t, "!"+menu+".checkVisibility()")
}

func TestMenuTakesKeys(t *testing.T) {
	s := start(t)
	s.set(ladder)
	w := browse(t, s, "/watch/front-door?stats", false)
	w.until(t, player+".state === 'playing' && "+menu+".checkVisibility()")
	w.press(t, "q")
	w.until(t, shadow+".activeElement === "+menu)
	// letters belong to the menu then
	w.eval(t, menu+".dispatchEvent(new KeyboardEvent('keydown', { key: 'm', bubbles: true, composed: true }))", nil)
	w.eval(t, menu+".dispatchEvent(new KeyboardEvent('keydown', { key: 's', bubbles: true, composed: true }))", nil)
	w.until(t, player+".muted && "+player+".hasAttribute('stats')")
	w.until(t, shadow+".querySelector('.panel').innerText.includes('high, chosen by itself')")
}

func TestAddressNamesTheRendition(t *testing.T) {
	s := start(t)
	s.set(ladder)
	w := browse(t, s, "/watch/front-door?rendition=low", false)
	w.until(t, player+".state === 'playing' && "+player+".video.videoWidth === 320 && "+menu+".value === 'low'")
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Equal(s.asked, []string{"low"}) {
		t.Errorf("asked for %q, want one join with low", s.asked)
	}
}

func TestCodecChangesOnOneConnection(t *testing.T) {
	s := start(t)
	s.set(ladder)
	w := browse(t, s, "/watch/front-door", false)
	w.until(t, player+".state === 'playing'")
	w.eval(t, mark, nil)
	for range 2 {
		w.pick(t, "other")
		w.until(t, player+".video.videoWidth === 480 && "+player+".stats?.codec === 'H.264' && "+kept)
		w.pick(t, "high")
		w.until(t, player+".video.videoWidth === 640 && "+player+".stats?.codec === 'VP8' && "+kept)
	}
	w.eval(t, "(marked.frames = 0)", nil)
	w.until(t, "marked.frames > 30 && "+player+".state === 'playing'")
	w.neverBlack(t)
	if s.joins != 1 {
		t.Errorf("%d joins, want 1", s.joins)
	}
}

func TestPictureOutlivesItsTrack(t *testing.T) {
	s := start(t)
	s.set(ladder)
	w := browse(t, s, "/watch/front-door", false)
	w.until(t, player+".state === 'playing'")
	w.eval(t, mark, nil)
	w.eval(t, "(marked.track = "+player+".video.srcObject.getVideoTracks()[0], marked.media = "+player+".video.srcObject, 0)", nil)
	s.mu.Lock()
	for v := range s.sessions {
		go v.replace(ladder.Tracks[2])
	}
	s.mu.Unlock()
	w.until(t, player+".video.videoWidth === 480 && "+player+".video.srcObject === marked.media && "+kept)
	w.until(t, "marked.media.getVideoTracks().length === 1 && marked.media.getVideoTracks()[0] !== marked.track")
	w.until(t, shadow+".querySelector('canvas').hidden && "+player+".stats?.codec === 'H.264' && "+player+".stats.fps > 20")
	w.neverBlack(t)
}

const remark = "document.querySelector('[slot=remark] .refused')"

func TestRefusedEditIsShownUntilAGoodOne(t *testing.T) {
	s := start(t)
	s.set(door)
	w := browse(t, s, "/watch/front-door?stats", false)
	w.until(t, player+".state === 'playing'")
	w.until(t, "!"+remark+".checkVisibility()")
	edited := door
	edited.Reload = &reload{At: time.Now().UnixMilli(), Message: "the file has faults; what ran goes on", Findings: []string{"pipelines/front-door.yaml:3:10: video.codec: <b>\"h263\"</b> is unknown; use h264"}}
	s.set(edited)
	w.until(t, remark+".checkVisibility() && "+remark+`.innerText.includes('pipelines/front-door.yaml: edit refused: the file has faults; what ran goes on') && `+remark+`.innerText.includes('<b>"h263"</b> is unknown')`)
	w.until(t, player+".state === 'playing' && !"+notice) // the picture is left alone
	w.eval(t, "(document.querySelector('.settings').open = true, 0)", nil)
	for _, text := range []string{"refused: the file has faults", "<b>\"h263\"</b> is unknown", "title: Front door", "Pipeline of video (vp8enc)", "videotestsrc ! <video>", "encoder vp8enc: the best"} {
		w.until(t, fmt.Sprintf("document.querySelector('.settings').innerText.includes(%q)", text))
	}
	w.eval(t, remark+".querySelector('button').click()", nil)
	w.until(t, "!"+remark+".checkVisibility()")
	again := *edited.Reload
	again.At, again.Message = again.At+1000, "x264enc: no keyframe within 5 s"
	edited.Reload = &again
	s.set(edited)
	w.until(t, remark+".checkVisibility() && "+remark+".innerText.includes('no keyframe within 5 s')") // another edit, another remark
	good := door
	good.Title, good.Reload = "Back door", &reload{At: again.At + 1000, OK: true, Message: "bitrate changed"}
	s.set(good)
	w.until(t, "!"+remark+".checkVisibility() && document.querySelector('.settings').innerText.includes('taken: bitrate changed')")
	w.until(t, "document.querySelector('.settings').innerText.includes('title: Back door')") // read again
	if s.joins != 1 {
		t.Errorf("%d joins, want 1", s.joins)
	}

	// a wall without controls shows the picture and nothing else
	s.set(edited)
	if err := w.page.Navigate(w.ctx, s.url("/watch/front-door?controls=0")); err != nil {
		t.Fatal(err)
	}
	w.until(t, player+".state === 'playing' && !"+remark+".checkVisibility()")
}

func TestCardsTellOfFilesAndEdits(t *testing.T) {
	s := start(t)
	edited := ladder
	edited.Reload = &reload{At: 1, Message: "no such encoder"}
	s.set(edited)
	s.problems = []string{"pipelines/desk.yaml:12:14: video.bitrate: too low", "pipelines/a.yaml:1:1: source: missing", "pipelines/desk.yaml:14:1: size: unknown key", "the folder can't be read"}
	w := browse(t, s, "/", false)
	w.until(t, "document.querySelector('.card').innerText.includes('pipelines/front-door.yaml: edit refused: no such encoder')")
	w.until(t, "document.querySelector('.card').innerText.includes('4 renditions')")
	var files []string
	w.eval(t, "[...document.querySelectorAll('#problems > ul > li')].map((li) => (li.querySelector('h3')?.textContent ?? '') + ' ' + li.querySelectorAll('li').length)", &files)
	if want := []string{"pipelines/desk.yaml 2", "pipelines/a.yaml 1", " 1"}; !slices.Equal(files, want) {
		t.Errorf("problems of %q, want %q", files, want)
	}
	s.set(ladder)
	w.until(t, "!document.querySelector('.card').innerText.includes('refused')")
}

func TestRenditionsWorkInFirefox(t *testing.T) {
	s := start(t)
	two := ladder
	two.Tracks = []track{ladder.Tracks[0], ladder.Tracks[1], audio}
	s.set(two)
	w := browseFirefox(t, s, "/watch/front-door")
	w.until(t, player+".state === 'playing' && "+menu+".options.length === 3 && "+menu+".checkVisibility()")
	w.eval(t, mark, nil)
	w.pick(t, "low")
	w.until(t, player+".video.videoWidth === 320 && "+menu+".selectedOptions[0].text.endsWith('(playing)') && "+kept)
	w.pick(t, "high")
	w.until(t, player+".video.videoWidth === 640 && "+kept)
	var codecs []string
	w.eval(t, "RTCRtpReceiver.getCapabilities('video').codecs.map((c) => c.mimeType)", &codecs)
	t.Logf("Firefox says that it receives %s", strings.Join(slices.Compact(codecs), ", "))
}

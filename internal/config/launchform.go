package config

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"gateway/internal/media"
)

// readLaunchForm finds the tracks of a launch text by the names of its appsinks.
func readLaunchForm(m *mapping, s *Stream) {
	if m.has("source") {
		m.fault("source", "launch is given too", "keep one of source and launch")
	}
	text, nodes := launchText(m, "launch")
	s.Launch = text
	sinks := map[string]int{}
	for i, n := range nodes {
		if n.kind != launchElement || n.name != "appsink" {
			continue
		}
		name, _ := n.prop("name")
		_, twice := sinks[name]
		switch {
		case name == "":
			m.fault("launch", "an appsink has no name", "write \"appsink name=video\" or \"appsink name=audio\"")
		case name != VideoTrack && name != AudioTrack:
			m.fault("launch", "the appsink "+quote(name)+" is no track", "name it video or audio")
		case twice:
			m.fault("launch", "two appsinks have the name "+quote(name), "keep one")
		}
		sinks[name] = i
	}
	if nodes != nil && len(sinks) == 0 {
		m.fault("launch", "there is no appsink", "end the pipeline with \"! appsink name=video\"")
	}
	for _, kind := range []media.Kind{media.Video, media.Audio} {
		track := kind.String()
		sub := m.d.mapping(m.value(track), track)
		i, found := sinks[track]
		if !found {
			if m.has(track) && nodes != nil {
				m.fault(track, "the launch text has no appsink of the name "+track, "name its appsink "+track+", or remove the key")
			}
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(sub.values)) {
			if !slices.Contains([]string{"codec", "width", "height", "framerate", "bitrate"}, name) {
				sub.fault(name, "in the launch form the launch text decides it", "remove it, and write it in the launch text")
			}
		}
		seen := chainFacts(nodes, i)
		codec := sub.codec(kind, seen.codec)
		switch {
		case sub.has("codec"):
		case codec == "":
			m.fault("launch", "the codec of the appsink "+quote(track)+" cannot be seen", "say it as "+track+".codec")
		case codec.Kind() != kind:
			m.fault("launch", "the appsink "+quote(track)+" gets "+string(codec), "name the appsink "+codec.Kind().String())
		case len(Encoders(codec)) == 0:
			m.fault("launch", string(codec)+" is not supported yet", "use another codec")
		}
		if kind == media.Audio {
			s.Audio = &Audio{Codec: codec, Bitrate: sub.bitrate("bitrate", seen.bitrate, minAudioBitrate, maxAudioBitrate), Channels: seen.channels}
			continue
		}
		v := &Video{Codec: codec, Encoder: seen.encoder, Profile: seen.profile}
		readPicture(sub, v)
		if v.Width == 0 {
			v.Width, v.Height = seen.width, seen.height
		}
		if v.FPS == 0 {
			v.FPS = seen.fps
		}
		v.Bitrate = sub.bitrate("bitrate", seen.bitrate, minVideoBitrate, maxVideoBitrate)
		s.Video = v
	}
}

// facts is what a launch text says about the track of an appsink.
type facts struct {
	codec         media.Codec
	encoder       string // row of the encoder table
	profile       string
	width, height int
	fps           float64
	bitrate       int
	channels      int
}

var payloadCodecs = map[string]media.Codec{
	"rtph264pay": media.H264, "rtph265pay": media.H265, "rtpvp8pay": media.VP8, "rtpvp9pay": media.VP9,
	"rtpav1pay": media.AV1, "av1parse": media.AV1, "rtpopuspay": media.Opus, "rtppcmupay": media.PCMU, "rtppcmapay": media.PCMA,
}

// chainFacts walks from an appsink up its chain. Where the chain begins at a
// reference ("t. ! queue ! …") it goes on at the end of the chain of that name.
func chainFacts(nodes []launchNode, i int) facts {
	f := facts{channels: 2}
	seen := map[int]bool{}
	for i >= 0 && !seen[i] {
		seen[i] = true
		n := &nodes[i]
		switch n.kind {
		case launchCaps:
			f.caps(n.name)
		case launchElement:
			if c, ok := payloadCodecs[n.name]; ok && f.codec == "" {
				f.codec = c
			}
			if row, ok := FindEncoder(n.name); ok && f.encoder == "" {
				f.encoder = row.Name
				if f.codec == "" {
					f.codec = row.Codec
				}
				if v, ok := n.prop(row.Bitrate.Property); ok {
					if bps, err := parsePositive(v); err == nil && bps <= math.MaxInt32/row.Bitrate.Unit {
						f.bitrate = bps * row.Bitrate.Unit
					}
				}
			}
		}
		switch {
		case n.linked:
			i--
		case n.kind == launchRef:
			name, _, _ := strings.Cut(n.name, ".")
			i = slices.IndexFunc(nodes, func(o launchNode) bool {
				given, _ := o.prop("name")
				return name != "" && given == name
			})
		default:
			i = -1
		}
	}
	return f
}

func parsePositive(s string) (int, error) {
	var n int
	_, err := fmt.Sscanf(s, "%d", &n)
	if err == nil && n <= 0 {
		err = errors.New("not positive")
	}
	return n, err
}

func (f *facts) caps(text string) {
	kind, _, _ := strings.Cut(text, ",")
	switch strings.TrimSpace(kind) {
	case "application/x-rtp":
		if c, err := media.ParseCodec(capsField(text, "encoding-name")); err == nil && f.codec == "" {
			f.codec = c
		}
	case "video/x-h264":
		if f.profile == "" {
			f.profile = capsField(text, "profile")
		}
	case "video/x-av1":
		if f.codec == "" {
			f.codec = media.AV1
		}
	case "audio/x-raw", "audio/x-opus":
		if n := capsInt(text, "channels"); n == 1 || n == 2 {
			f.channels = n
		}
	}
	if strings.HasPrefix(kind, "video/") || strings.HasPrefix(kind, "image/") {
		if w, h := capsInt(text, "width"), capsInt(text, "height"); f.width == 0 && w > 0 && h > 0 && w <= maxSide && h <= maxSide {
			f.width, f.height = w, h
		}
		if r := capsRate(text); f.fps == 0 && r <= maxFPS {
			f.fps = r
		}
	}
}

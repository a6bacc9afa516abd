package signal

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"gateway/internal/auth"
	"gateway/internal/media"
	"gateway/internal/rtc"
)

func text(dst *string, v json.RawMessage, limit int) error {
	if len(v) == 0 || v[0] != '"' || json.Unmarshal(v, dst) != nil {
		return errors.New("not a string")
	}
	if len(*dst) > limit {
		return fmt.Errorf("longer than %d bytes", limit)
	}
	return nil
}

func number(dst *float64, v json.RawMessage, limit float64) error {
	if isNull(v) || json.Unmarshal(v, dst) != nil {
		return errors.New("not a number")
	}
	if *dst < 0 || *dst > limit {
		return fmt.Errorf("not between 0 and %.0f", limit)
	}
	return nil
}

func integer(dst *int, v json.RawMessage) error {
	if isNull(v) || json.Unmarshal(v, dst) != nil {
		return errors.New("not an integer")
	}
	return nil
}

// count reads a number of things.
func count(dst *int, v json.RawMessage) error {
	if err := integer(dst, v); err != nil {
		return err
	}
	if *dst < 0 || *dst > 1<<53 {
		return errors.New("not between 0 and 2^53")
	}
	return nil
}

// pixels reads a length in device pixels, rounded.
func pixels(dst *int, v json.RawMessage) error {
	var n float64
	if err := number(&n, v, maxPixels); err != nil {
		return err
	}
	*dst = int(math.Round(n))
	return nil
}

func boolean(dst *bool, v json.RawMessage) error {
	if isNull(v) || json.Unmarshal(v, dst) != nil {
		return errors.New("not true or false")
	}
	return nil
}

// displayName reads what others see of somebody: one line.
func displayName(dst *string, v json.RawMessage) error {
	if err := text(dst, v, maxName); err != nil {
		return err
	}
	if strings.ContainsFunc(*dst, auth.Hides) {
		return errors.New("it holds a control character")
	}
	*dst = strings.TrimSpace(*dst)
	return nil
}

// oneOf reads one of some words.
func oneOf[T ~string](dst *T, v json.RawMessage, words ...T) error {
	var s string
	if err := text(&s, v, 64); err != nil {
		return err
	}
	if !slices.Contains(words, T(s)) {
		return fmt.Errorf("not one of %v", words)
	}
	*dst = T(s)
	return nil
}

func readKind(v json.RawMessage) (media.Kind, error) {
	var s string
	err := oneOf(&s, v, media.Video.String(), media.Audio.String())
	if s == media.Audio.String() {
		return media.Audio, err
	}
	return media.Video, err
}

// readData reads any JSON, which others are given as it is.
func readData(v json.RawMessage) (json.RawMessage, error) {
	if len(v) > maxData {
		return nil, fmt.Errorf("longer than %d bytes", maxData)
	}
	return slices.Clone(v), nil
}

func isNull(v json.RawMessage) bool { return string(v) == "null" }

// readCandidate reads an RTCIceCandidateInit. Null means that no more come, and
// so does an empty candidate string, which browsers send at the end of each
// generation (W3C WebRTC §4.4.1.3).
func readCandidate(v json.RawMessage) (*rtc.Candidate, error) {
	if isNull(v) {
		return nil, nil
	}
	object, err := readObject(v)
	if err != nil {
		return nil, err
	}
	c := new(rtc.Candidate)
	if err := text(&c.Candidate, object["candidate"], 1024); err != nil {
		return nil, fmt.Errorf("candidate: %w", err)
	}
	for name, v := range object {
		var err error
		switch {
		case name == "candidate":
		case isNull(v) && (name == "sdpMid" || name == "sdpMLineIndex" || name == "usernameFragment"):
		case name == "sdpMid":
			c.SDPMid = new(string)
			err = text(c.SDPMid, v, 64)
		case name == "usernameFragment":
			c.UsernameFragment = new(string)
			err = text(c.UsernameFragment, v, 256) // RFC 8839 §5.4
		case name == "sdpMLineIndex":
			c.SDPMLineIndex = new(uint16)
			if json.Unmarshal(v, c.SDPMLineIndex) != nil {
				err = errors.New("not an integer from 0 to 65535")
			}
		default:
			err = errors.New("unknown")
		}
		if err != nil {
			return nil, fmt.Errorf("%.64s: %w", name, err)
		}
	}
	if c.Candidate == "" {
		return nil, nil
	}
	return c, nil
}

// readView reads how a page shows a stream: the fields of a view message.
func readView(v json.RawMessage) (*view, error) {
	object, err := readObject(v)
	if err != nil {
		return nil, err
	}
	shown := &view{audible: true}
	for _, name := range []string{"width", "height", "visible"} {
		if _, ok := object[name]; !ok {
			return nil, fmt.Errorf("%s is missing", name)
		}
	}
	for name, v := range object {
		var err error
		switch name {
		case "width":
			err = pixels(&shown.width, v)
		case "height":
			err = pixels(&shown.height, v)
		case "visible":
			err = boolean(&shown.visible, v)
		case "audible":
			err = boolean(&shown.audible, v)
		default:
			err = errors.New("unknown")
		}
		if err != nil {
			return nil, fmt.Errorf("%.64s: %w", name, err)
		}
	}
	return shown, nil
}

package config

import "strings"

// Locate is where a byte of the launch text that a key holds ("source", "launch",
// "audio.source") is in the file, from 1. The text has been put on one line, the
// file may have it over many.
func (s *Stream) Locate(key string, offset int) (line, column int) {
	line, column = s.Position(key)
	p, given := s.at[key]
	text := map[string]string{"source": s.Source, "launch": s.Launch}[key]
	if key == "audio.source" && s.Audio != nil {
		text = s.Audio.Source
	}
	if !given || offset < 0 || offset >= len(text) {
		return line, column
	}
	// Folding changes blanks only: the letter is found by counting the others.
	n := len(strings.Join(strings.Fields(text[:offset]), ""))
	rest := fileFrom(s.data, p)
	at := p
	quote := byte(0)
	switch {
	case rest == "":
		return line, column
	case rest[0] == '>' || rest[0] == '|':
		_, body, _ := strings.Cut(rest, "\n")
		rest, at = body, position{p.line + 1, 1}
	case rest[0] == '\'' || rest[0] == '"':
		quote = rest[0]
		rest, at = rest[1:], position{p.line, p.column + 1}
	}
	for i := 0; i < len(rest); i++ {
		c := rest[i]
		switch {
		case c == '\n':
			at = position{at.line + 1, 1}
			continue
		case quote == '\'' && c == quote && strings.HasPrefix(rest[i:], "''"),
			quote == '"' && c == '\\':
			at.column++ // it stands for the letter behind it
			i++
			if i >= len(rest) || quote == '"' && rest[i] != '"' && rest[i] != '\\' {
				return line, column // another escape: only the whole is known
			}
			c = rest[i]
		}
		if !isSpace(c) {
			if n == 0 {
				return at.line, at.column
			}
			n--
		}
		if c&0xc0 != 0x80 { // a column is a letter, not a byte
			at.column++
		}
	}
	return line, column
}

// fileFrom is the text of a file from a position on.
func fileFrom(data []byte, p position) string {
	rest := string(data)
	for range p.line - 1 {
		_, below, ok := strings.Cut(rest, "\n")
		if !ok {
			return ""
		}
		rest = below
	}
	for i := range rest {
		if p.column--; p.column == 0 {
			return rest[i:]
		}
	}
	return ""
}

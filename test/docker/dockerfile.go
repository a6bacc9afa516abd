// Package docker carries out a Dockerfile's steps in a clean Debian, in chroots,
// on a machine without a container engine. It knows the instructions that the
// gateway's Dockerfile uses and refuses others.
//
// It proves the package list, the build steps, the files, the user and the
// health check. It doesn't prove what only an engine has: the two base images
// themselves (Debian by debootstrap and this machine's Go stand in for them),
// layers, and the forwarding of ports and devices.
package docker

import (
	"encoding/json"
	"fmt"
	"strings"
)

// Instruction is one instruction of a Dockerfile.
type Instruction struct {
	Line int
	Name string // in capitals: "RUN"
	Args string // what follows, continued lines joined
}

// Parse reads a Dockerfile.
func Parse(text string) ([]Instruction, error) {
	var all []Instruction
	var current *Instruction
	for i, line := range strings.Split(text, "\n") {
		trimmed := strings.TrimSpace(line)
		if trimmed == "" || strings.HasPrefix(trimmed, "#") {
			continue
		}
		rest, continued := strings.CutSuffix(trimmed, `\`)
		if current == nil {
			name, args, _ := strings.Cut(rest, " ")
			all = append(all, Instruction{Line: i + 1, Name: strings.ToUpper(name), Args: strings.TrimSpace(args)})
			current = &all[len(all)-1]
		} else {
			current.Args += " " + strings.TrimSpace(rest)
		}
		if !continued {
			current = nil
		}
	}
	if current != nil {
		return nil, fmt.Errorf("line %d: %s goes on after the end of the file", current.Line, current.Name)
	}
	return all, nil
}

// execForm reads the JSON array of CMD, ENTRYPOINT and HEALTHCHECK CMD.
func execForm(args string) ([]string, error) {
	var words []string
	if err := json.Unmarshal([]byte(args), &words); err != nil {
		return nil, fmt.Errorf("%s: only the exec form is understood: %w", args, err)
	}
	return words, nil
}

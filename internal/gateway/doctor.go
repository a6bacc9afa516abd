package gateway

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"gateway/internal/config"
)

// verdict is what a check comes to.
type verdict string

const (
	fine verdict = "ok"
	warn verdict = "warn" // it works, with what the finding names
	fail verdict = "fail" // something doesn't work
)

// checked is the outcome of one check of the doctor's.
type checked struct {
	Area    string  `json:"area"` // such as "disk"
	Verdict verdict `json:"verdict"`
	Finding string  `json:"finding"`
	Remedy  string  `json:"remedy,omitempty"` // one sentence; none where all is well
}

func ok(area, finding string, args ...any) checked {
	return checked{area, fine, fmt.Sprintf(finding, args...), ""}
}

// doctor is one examination.
type doctor struct {
	settings Settings
	running  *support // what the gateway that serves tells; nil: none does, or it tells this user nothing
	serves   bool     // there is a gateway that answers
	devices  *devices // what there is to capture
}

// doctorTimeout bounds an examination.
const doctorTimeout = 90 * time.Second

// Doctor looks for what keeps a gateway with these settings from working well on this
// machine, now and as this user, and prints each thing that it has looked at with a
// verdict and, where something is to be done, a remedy. It may run beside a running
// gateway, whose ports and devices it leaves alone, and captures nothing. broken is why there are
// no settings. The error says how many checks have failed.
func Doctor(ctx context.Context, settings Settings, broken error, asJSON bool, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, doctorTimeout)
	defer cancel()
	d := &doctor{settings: settings}
	var all []checked
	if broken != nil {
		all = configurationFaults(broken)
	} else {
		all = d.examine(ctx)
	}
	failed, warnings := 0, 0
	for i, c := range all {
		all[i].Finding, all[i].Remedy = config.Redact(c.Finding), config.Redact(c.Remedy)
		switch c.Verdict {
		case fail:
			failed++
		case warn:
			warnings++
		}
	}
	if asJSON {
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		e.SetEscapeHTML(false)
		if err := e.Encode(struct {
			Checks   []checked `json:"checks"`
			Failed   int       `json:"failed"`
			Warnings int       `json:"warnings"`
		}{all, failed, warnings}); err != nil {
			return err
		}
	} else {
		for _, c := range all {
			fmt.Fprintf(out, "%-5s %-14s %s\n", c.Verdict, c.Area, c.Finding)
			if c.Remedy != "" {
				fmt.Fprintf(out, "%20s → %s\n", "", c.Remedy)
			}
		}
		fmt.Fprintf(out, "%d looked at, %d warnings, %d failed\n", len(all), warnings, failed)
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d checks have failed", failed, len(all))
	}
	return nil
}

// configurationFaults is all that can be said without settings.
func configurationFaults(broken error) (all []checked) {
	var faults config.Errors
	if !errors.As(broken, &faults) {
		return []checked{{"configuration", fail, broken.Error(), "mend what it names"}}
	}
	for _, f := range faults {
		remedy := f.Remedy
		short := *f
		short.Remedy = ""
		all = append(all, checked{"configuration", fail, short.Error(), cmp.Or(remedy, "mend that line")})
	}
	return all
}

// examine makes all checks. What one needs, another before it has found.
func (d *doctor) examine(ctx context.Context) (all []checked) {
	all = append(all, ok("configuration", "it is good: %s, auth.mode %s", d.settings.conf.Listen, d.settings.conf.Auth.Mode))
	for _, check := range []func(context.Context) []checked{
		d.gateway, d.user, d.state, d.pipelines, d.gstreamer, d.capture, d.encoders,
		d.ports, d.addresses, d.names, d.https, d.clock, d.disk, d.memory, d.files, d.network,
	} {
		if ctx.Err() != nil {
			return append(all, checked{"doctor", fail, fmt.Sprintf("it took more than %v: the rest wasn't looked at", doctorTimeout), "look at the last line above: what it names may hang"})
		}
		all = append(all, check(ctx)...)
	}
	return all
}

// and joins names as a sentence has them.
func and(names []string) string {
	if len(names) < 2 {
		return strings.Join(names, "")
	}
	return strings.Join(names[:len(names)-1], ", ") + " and " + names[len(names)-1]
}

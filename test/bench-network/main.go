// Command bench-network measures what viewers get over bad networks: the gateway's
// own process and, in the same run, two servers as pion's examples have them (see
// baseline), each in a network namespace, a viewer in another, and between them a
// link of package impair. The viewer is Chromium, or package receiver.
//
// It prints a row of a Markdown table for each case and contender; figures.go says
// what each column is. Aims, of a viewer alone: 85 % used of a steady link; after a
// halving it fits within 1 s and the queue is drained within 2; after a doubling 80 %
// within 10 s; no freeze of more than 500 ms.
//
// Needs root and TUN devices. A case takes about 40 s for each contender, all of them
// half an hour.
//
//	go run ./test/bench-network [-cases steps,low] [-contenders gateway,fixed,gcc] [-viewers chromium,pion] [-runs 1] [-trace DIR] [-v]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"gateway/test/rig"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "baseline" {
		if err := serveBaseline(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "baseline:", err)
			os.Exit(1)
		}
		return
	}
	names := flag.String("cases", "", "some of the cases, separated by commas; -list prints them")
	who := flag.String("contenders", "gateway,fixed,gcc", "which servers")
	viewers := flag.String("viewers", "chromium", "chromium, pion or both")
	runs := flag.Int("runs", 1, "of each; medians are printed")
	seed := flag.Uint64("seed", 1, "of what the network leaves to chance")
	trace := flag.String("trace", "", "a folder for time series of each run")
	size := flag.String("size", "1280x720", "of the picture; smaller where the machine is too slow")
	list := flag.Bool("list", false, "print the cases")
	verbose := flag.Bool("v", false, "print what the servers log")
	flag.Parse()
	if *list {
		for _, c := range cases() {
			fmt.Printf("%-10s %3.0f s  %s\n", c.name, c.lasts().Seconds(), c.about)
		}
		fmt.Printf("%-10s %3.0f s  %s\n", crowdName, (2*joining + crowdAlone + crowdTogether).Seconds(), "a good viewer, alone and beside 19 bad ones (receivers)")
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	b := &bench{seed: *seed, trace: *trace}
	if _, err := fmt.Sscanf(*size, "%dx%d", &b.width, &b.height); err != nil {
		fmt.Fprintln(os.Stderr, "bench-network: -size is such as 640x360")
		os.Exit(2)
	}
	if *verbose {
		b.log = os.Stderr
	}
	err := b.all(ctx, *names, *who, *viewers, max(*runs, 1))
	if err = errors.Join(err, rig.RemoveBinary()); err != nil {
		fmt.Fprintln(os.Stderr, "bench-network:", err)
		os.Exit(1)
	}
}

func (b *bench) all(ctx context.Context, names, who, viewers string, runs int) error {
	chosen, crowded, err := choose(names)
	if err != nil {
		return err
	}
	var entrants []entrant
	for name := range strings.SplitSeq(who, ",") {
		if contenders[name] == nil {
			return fmt.Errorf("there is no contender %q: there are gateway, fixed and gcc", name)
		}
		for viewer := range strings.SplitSeq(viewers, ",") {
			if viewer != "chromium" && viewer != "pion" {
				return fmt.Errorf("there is no viewer %q: there are chromium and pion", viewer)
			}
			entrants = append(entrants, entrant{name, viewer})
		}
	}
	if b.trace != "" {
		if err := os.MkdirAll(b.trace, 0o755); err != nil {
			return err
		}
	}
	if err := ready(); err != nil {
		return err
	}
	var total time.Duration
	for _, c := range chosen {
		total += c.lasts() * time.Duration(len(entrants)*runs)
	}
	fmt.Fprintf(os.Stderr, "%d cases, %d contenders: about %s\n", len(chosen), len(entrants), (total * 11 / 10).Round(time.Minute))
	if len(chosen) > 0 {
		fmt.Println(header())
	}
	for _, c := range chosen {
		for _, e := range entrants {
			var all []figures
			for range runs {
				f, err := b.run(ctx, c, e)
				if e.contender != "gateway" && errors.Is(err, context.DeadlineExceeded) { // a fixed bitrate on a link of a tenth of it
					fmt.Fprintf(os.Stderr, "%s, %s: no picture: %v\n", c.name, e, err)
					continue
				}
				if err != nil {
					return fmt.Errorf("%s, %s: %w", c.name, e, err)
				}
				all = append(all, f)
				if runs > 1 {
					fmt.Fprintln(os.Stderr, f.row(c.name, e.String()))
				}
			}
			if len(all) == 0 {
				fmt.Printf("| %s | %s | no picture |\n", c.name, e)
				continue
			}
			fmt.Println(median(all).row(c.name, e.String()))
		}
	}
	if !crowded {
		return nil
	}
	fmt.Println("\n" + crowdHeader)
	for name := range strings.SplitSeq(who, ",") {
		if name == "gcc" && names == "" {
			continue // twenty encoders of 720p don't fit on the machines that this is made for
		}
		if err := b.crowd(ctx, name); err != nil {
			return fmt.Errorf("%s, %s: %w", crowdName, name, err)
		}
	}
	return nil
}

// choose picks cases by their names, separated by commas; all for none. crowded tells
// whether the crowd is among them.
func choose(names string) (chosen []oneCase, crowded bool, err error) {
	all := cases()
	if names == "" {
		return all, true, nil
	}
	for name := range strings.SplitSeq(names, ",") {
		if name == crowdName {
			crowded = true
			continue
		}
		i := slices.IndexFunc(all, func(c oneCase) bool { return c.name == name })
		if i < 0 {
			return nil, false, fmt.Errorf("there is no case %q: -list prints them", name)
		}
		chosen = append(chosen, all[i])
	}
	return chosen, crowded, nil
}

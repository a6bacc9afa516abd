package hostile

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"

	"github.com/pion/stun/v4"

	"gateway/test/viewer"
)

var udpAttacks = []attack{
	{"UDP", "flood: random datagrams of all sizes", func(ctx context.Context, e *enemy) error {
		return e.strangers(ctx, 4, func() []byte { return noise(1 + rand.IntN(1400)) })
	}},
	{"UDP", "flood: random datagrams in good viewers' names", hear(anything, func(ctx context.Context, e *enemy) error {
		return e.inTheirName(ctx, func(overheard) []byte { return noise(1 + rand.IntN(1400)) })
	})},
	{"ICE/STUN", "malformed: checks damaged at random", func(ctx context.Context, e *enemy) error {
		return e.strangers(ctx, 4, func() []byte { return damage(check("abcd", "efgh", "no password")) })
	}},
	{"ICE/STUN", "malformed: attributes whose lengths lie", func(ctx context.Context, e *enemy) error {
		return e.strangers(ctx, 4, func() []byte {
			b := check("abcd", "efgh", "no password")
			b[22], b[23] = byte(rand.Uint32()), byte(rand.Uint32()) // of the first attribute
			return b
		})
	}},
	{"ICE/STUN", "oversized: checks with a name of 60 KB", func(ctx context.Context, e *enemy) error {
		name := strings.Repeat("x", 500)
		return e.strangers(ctx, 4, func() []byte {
			m := stun.New()
			m.SetType(stun.BindingRequest)
			m.NewTransactionID()
			for range 100 {
				m.Add(stun.AttrUsername, []byte(name))
			}
			return m.Raw
		})
	}},
	{"ICE/STUN", "flood: checks for nobody", func(ctx context.Context, e *enemy) error {
		return e.strangers(ctx, 8, func() []byte { return check(fmt.Sprintf("%x", noise(4)), "efgh", "no password") })
	}},
	{"ICE/STUN", "spoofed: checks for good viewers, wrong password", hear(overheard.isSTUN, func(ctx context.Context, e *enemy) error {
		names := namesOf(e.heard)
		if len(names) == 0 {
			return nil
		}
		return e.strangers(ctx, 4, func() []byte { return check(names[rand.IntN(len(names))], "efgh", "no password") })
	})},
	{"ICE/STUN", "replayed: good viewers' checks, from elsewhere", hear(overheard.isSTUN, func(ctx context.Context, e *enemy) error {
		return e.strangers(ctx, 4, func() []byte { return e.heard[rand.IntN(len(e.heard))].payload })
	})},
	{"ICE/STUN", "replayed: good viewers' checks, in each other's name", hear(overheard.isSTUN, func(ctx context.Context, e *enemy) error {
		return e.inTheirName(ctx, func(overheard) []byte { return e.heard[rand.IntN(len(e.heard))].payload })
	})},
	{"ICE/STUN", "spoofed: errors and answers in good viewers' names", hear(overheard.isSTUN, func(ctx context.Context, e *enemy) error {
		return e.inTheirName(ctx, func(o overheard) []byte {
			m := &stun.Message{Raw: append([]byte(nil), o.payload...)}
			if m.Decode() != nil {
				return nil
			}
			class := []stun.MessageClass{stun.ClassErrorResponse, stun.ClassSuccessResponse, stun.ClassIndication}[rand.IntN(3)]
			m.SetType(stun.NewType(stun.MethodBinding, class))
			return m.Raw
		})
	})},
	{"ICE/STUN", "spoofed: candidates that are good viewers' addresses", hear(anything, func(ctx context.Context, e *enemy) error {
		offer, err := newOffer()
		if err != nil {
			return err
		}
		for i, o := range e.heard {
			offer += fmt.Sprintf("a=candidate:%d 1 udp %d %s %d typ host\r\n", i, 2130706431-i, o.from.Addr(), o.from.Port())
		}
		client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}}
		e.many(ctx, 8, func() {
			_, _, err := viewer.Post(ctx, client, e.url("/whep/good"), offer)
			e.answered(err)
		})
		return nil
	})},
}

// check is an ICE check (RFC 8445 §7.1.1) for a ufrag of the gateway's.
func check(theirs, own, password string) []byte {
	m := stun.MustBuild(stun.TransactionID, stun.BindingRequest, stun.NewUsername(theirs+":"+own),
		attribute{stun.AttrPriority, []byte{0x6e, 0, 0, 1}}, attribute{stun.AttrUseCandidate, nil}, attribute{stun.AttrICEControlling, noise(8)},
		stun.NewShortTermIntegrity(password), stun.Fingerprint)
	return m.Raw
}

// attribute is a STUN attribute as it is.
type attribute struct {
	kind  stun.AttrType
	value []byte
}

func (a attribute) AddTo(m *stun.Message) error {
	m.Add(a.kind, a.value)
	return nil
}

// namesOf are the gateway's ufrags in checks that were overheard.
func namesOf(heard []overheard) (names []string) {
	for _, o := range heard {
		m := &stun.Message{Raw: o.payload}
		var name stun.Username
		if m.Decode() == nil && name.GetFrom(m) == nil {
			ufrag, _, _ := strings.Cut(name.String(), ":")
			names = append(names, ufrag)
		}
	}
	return names
}

var _ net.PacketConn = (*session)(nil)

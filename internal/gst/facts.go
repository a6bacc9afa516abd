package gst

/*
#include <stdlib.h>
#include "native.h"
#include "facts.h"
*/
import "C"

import (
	"context"
	"crypto/sha256"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
	"unsafe"

	"gateway/internal/config"
)

const factsTimeout = 5 * time.Second // to load a plugin, or to make and link a few elements

// units splits a text of native units.
func units(text string) []string {
	u := strings.Split(text, "\x1f")
	return u[:len(u)-1]
}

// taken is a C text that becomes Go's.
func taken(text *C.char) string {
	if text == nil {
		return ""
	}
	defer C.g_free(C.gpointer(unsafe.Pointer(text)))
	return C.GoString(text)
}

// Elements lists the names of all installed elements, in order.
func (*Registry) Elements() []string {
	Init()
	names := units(taken(C.element_names()))
	slices.Sort(names)
	return names
}

// Restrict has this process forget the elements for which refused says so, given their
// class ("Source/Network"): no launch text and no element can make them then. It is
// called before there are pipelines.
func Restrict(refused func(factory, class string) bool) {
	Init()
	all := units(taken(C.element_classes()))
	for i := 0; i+1 < len(all); i += 2 {
		if refused(all[i], all[i+1]) {
			name := C.CString(all[i])
			C.element_remove(name)
			C.free(unsafe.Pointer(name))
		}
	}
}

// Signature is the same for as long as the same plugins have the same elements.
func Signature() string {
	Init()
	all := append(units(taken(C.plugin_list())), units(taken(C.element_names()))...)
	slices.Sort(all)
	return fmt.Sprintf("%x", sha256.Sum256([]byte(strings.Join(all, "\n"))))
}

// described holds what Element has found out: it can't change while the process lives.
var described sync.Map // factory → config.Element

// Element describes an element type. It loads its plugin, which some need
// seconds for; it is not ok if there is none or it can't be loaded.
func (*Registry) Element(factory string) (e config.Element, ok bool) {
	if e, ok := described.Load(factory); ok {
		return e.(config.Element), true
	}
	Init()
	var text string
	ctx, cancel := context.WithTimeout(context.Background(), factsTimeout)
	defer cancel()
	err := bounded(ctx, "facts of "+factory, func() error {
		name := C.CString(factory)
		defer C.free(unsafe.Pointer(name))
		text = taken(C.element_facts(name))
		return nil
	}, nil)
	if err != nil || text == "" {
		return config.Element{}, false
	}
	e.Name = factory
	for record := range strings.SplitSeq(text, "\x1e") {
		u := units(record)
		if len(u) == 0 {
			continue
		}
		switch u[0] {
		case "element":
			e.Class, e.Children = u[1], u[2] != ""
		case "pad":
			e.Pads = append(e.Pads, config.PadTemplate{Name: u[1], Source: u[2] != "", Presence: u[3], Caps: u[4]})
		case "property":
			e.Properties = append(e.Properties, config.Property{
				Name: u[1], Type: u[2], Writable: u[3] != "", Deprecated: u[4] != "",
				Default: u[5], Min: u[6], Max: u[7], Values: u[8:],
			})
		}
	}
	described.Store(factory, e)
	return e, true
}

// Accepts tells whether a launch text may give a property that value: of the
// right type, and in range.
func (*Registry) Accepts(factory, property, value string) bool {
	Init()
	f, p, v := C.CString(factory), C.CString(property), C.CString(value)
	defer C.free(unsafe.Pointer(f))
	defer C.free(unsafe.Pointer(p))
	defer C.free(unsafe.Pointer(v))
	return C.property_accepts(f, p, v) != 0
}

// CapsFields lists the fields that pads of any installed element know of a media
// type such as "video/x-raw".
func (*Registry) CapsFields(mediaType string) []string {
	Init()
	m := C.CString(mediaType)
	defer C.free(unsafe.Pointer(m))
	return units(taken(C.caps_fields(m)))
}

// Link makes the nodes of one chain (launch text of one element or of caps each)
// and links them without starting them, and returns what is in the way, or nil. No device
// is opened: what the pads of a source can deliver stands in for it. A chain that
// takes more than 5 s to make isn't judged.
func (*Registry) Link(chain []string) *config.LinkFault {
	Init()
	if len(chain) == 0 {
		return nil
	}
	var fault *config.LinkFault
	ctx, cancel := context.WithTimeout(context.Background(), factsTimeout)
	defer cancel()
	err := bounded(ctx, "links of "+strings.Join(chain, " ! "), func() error {
		fault = link(chain)
		return nil
	}, nil)
	if err != nil {
		return nil
	}
	return fault
}

func link(chain []string) *config.LinkFault {
	n := len(chain)
	items, caps := make([]*C.char, n), make([]C.gboolean, n)
	for i, text := range chain {
		word, _, _ := strings.Cut(text, " ")
		if kind, _, _ := strings.Cut(word, ","); strings.Contains(kind, "/") && !strings.Contains(kind, "=") {
			caps[i] = C.TRUE
		}
		items[i] = C.CString(text)
		defer C.free(unsafe.Pointer(items[i]))
	}
	var f C.link_fault
	C.link_chain(&items[0], &caps[0], C.int(n), &f)
	defer C.link_fault_clear(&f)
	if f.at < 0 {
		return nil
	}
	return &config.LinkFault{
		At: int(f.at), Message: text(f.message), Field: text(f.field), Up: readable(text(f.up)), Down: readable(text(f.down)),
	}
}

var (
	capsType  = regexp.MustCompile(`\(\w+\)`)
	capsList  = regexp.MustCompile(`\{ ([^{}]*) \}`)
	capsRange = regexp.MustCompile(`\[ ([^\[\],]*), ([^\[\],]*) \]`)
)

// readable is a value of caps as people write it: "I420, NV12", "1 to 8192".
func readable(value string) string {
	value = capsRange.ReplaceAllString(capsList.ReplaceAllString(capsType.ReplaceAllString(value, ""), "$1"), "$1 to $2")
	return strings.TrimSpace(value)
}

// text copies a C text, which stays C's.
func text(s *C.char) string {
	if s == nil {
		return ""
	}
	return C.GoString(s)
}

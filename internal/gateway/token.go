package gateway

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"gateway/internal/auth"
	"gateway/internal/config"
)

// TokenOptions say what `gateway token` makes.
type TokenOptions struct {
	Role    string // viewer, publisher, host or admin
	Rooms   []string
	Streams []string
	Name    string        // to be shown to others
	Subject string        // "": the name
	TTL     time.Duration // how long it is good for
	Create  bool          // may make rooms
	Once    bool          // a link's: who redeems it first has it
	Link    bool          // print the address that opens with it
	Admin   bool          // print the admin's own token
	Hash    bool          // read a password, print its hash

	Revoke        string // take a token back: its text, or its id; "-": its text is read
	RevokeSubject string // take back all tokens of a subject
	Revoked       bool   // list what was taken back
}

// Token makes a token with the key in the state folder, of which it tells on
// notes, and prints it on out; or it prints the hash of a password that it reads
// from in, or takes tokens back. The gateway needn't run; one that runs hears of it.
func (s Settings) Token(o TokenOptions, in io.Reader, out, notes io.Writer) error {
	if o.Hash {
		line, err := bufio.NewReader(io.LimitReader(in, 4096)).ReadString('\n')
		if err != nil && err != io.EOF {
			return err
		}
		hash, err := auth.HashPassword(strings.TrimRight(line, "\r\n"))
		if err == nil {
			fmt.Fprintln(out, hash)
		}
		return err
	}
	if s.conf.Auth.Mode == config.AuthNone {
		return errors.New("auth.mode is none: nobody is asked for a token")
	}
	authority, err := auth.New(auth.Options{Config: &s.conf.Auth, State: s.conf.State})
	if err != nil {
		return err
	}
	if o.Revoke != "" || o.RevokeSubject != "" || o.Revoked {
		return revoke(authority, o, in, out, notes)
	}
	token, err := s.token(authority, o)
	if err != nil {
		return err
	}
	fmt.Fprintf(notes, "gateway: by the key in %s\n", s.conf.State)
	if o.Link {
		token = s.address() + page(o.Rooms) + "#token=" + token
	}
	fmt.Fprintln(out, token)
	return nil
}

// revoke takes tokens back, or lists what was.
func revoke(authority *auth.Authority, o TokenOptions, in io.Reader, out, notes io.Writer) error {
	if o.Revoked {
		for _, r := range authority.Revocations() {
			what := "token " + r.ID
			if r.ID == "" {
				what = "subject " + r.Subject
			}
			fmt.Fprintln(out, r.At.Local().Format(time.DateTime), what)
		}
		return nil
	}
	if o.Revoke == "-" {
		line, err := bufio.NewReader(io.LimitReader(in, 16<<10)).ReadString('\n')
		if err != nil && err != io.EOF {
			return err
		}
		o.Revoke = strings.TrimSpace(line)
	}
	if _, text, ok := strings.Cut(o.Revoke, "#token="); ok { // a link's address
		o.Revoke = text
	}
	if strings.Contains(o.Revoke, ".") {
		id, err := auth.TokenID(o.Revoke)
		if err != nil {
			return err
		}
		o.Revoke = id
	}
	r, err := authority.Revoke(auth.Revocation{ID: o.Revoke, Subject: o.RevokeSubject})
	if err == nil {
		fmt.Fprintf(notes, "gateway: revoked, kept in %s; a gateway that runs has heard\n", authority.RevokedFolder())
		fmt.Fprintln(out, cmp.Or(r.ID, r.Subject))
	}
	return err
}

func (s Settings) token(authority *auth.Authority, o TokenOptions) (string, error) {
	if o.Admin {
		return authority.AdminToken(), nil
	}
	g := &auth.Grant{Subject: o.Subject, Name: o.Name, Role: auth.Role(o.Role), Rooms: o.Rooms, Streams: o.Streams, Create: o.Create}
	if g.Subject == "" {
		g.Subject = g.Name
	}
	if len(g.Rooms) == 0 {
		g.Rooms = []string{"*"}
	}
	if !o.Once {
		return authority.Issue(g, o.TTL)
	}
	admin := auth.Open() // who can read the key may everything
	token, _, err := authority.Share(admin, g, o.TTL, 0)
	return token, err
}

// page is the path of the page of one room, "/" for none or several.
func page(rooms []string) string {
	if len(rooms) == 1 && !strings.ContainsAny(rooms[0], `*?[\`) {
		return "/room/" + url.PathEscape(rooms[0])
	}
	return "/"
}

// address is the gateway's, as far as the configuration tells: see [Gateway.URL].
func (s Settings) address() string {
	h, scheme := s.conf.HTTPS, "http"
	host, port, err := net.SplitHostPort(s.conf.Listen)
	if err != nil {
		return s.conf.Listen // checked: doesn't happen
	}
	if a, err := netip.ParseAddr(host); host == "" || err == nil && (a.IsUnspecified() || a.IsLoopback()) {
		host = "localhost"
	}
	if h.On() {
		scheme = "https"
		if len(h.ACME.Domains) > 0 {
			host = h.ACME.Domains[0]
		}
		if h.PublicPort != 0 {
			port = strconv.Itoa(h.PublicPort)
		}
		if port == "443" {
			return scheme + "://" + host
		}
	}
	return scheme + "://" + net.JoinHostPort(host, port)
}

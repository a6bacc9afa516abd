package client

import (
	"github.com/pion/transport/v4"
	"github.com/pion/transport/v4/stdnet"
)

// fresh is the machine's network. pion's own remembers the interfaces and addresses of its
// beginning, so that an ICE restart finds no way by those that came since.
type fresh struct{ *stdnet.Net }

func newFresh() (fresh, error) {
	n, err := stdnet.NewNet()
	return fresh{n}, err
}

// Interfaces are those that there are now. It implements transport.Net.
func (fresh) Interfaces() ([]*transport.Interface, error) {
	now, err := stdnet.NewNet()
	if err != nil {
		return nil, err
	}
	return now.Interfaces()
}

package impair

import (
	"context"
	"net"
	"testing"
	"time"

	"gateway/test/rig"
)

// Datagrams of 4 Mbit/s to each of two clients, one of which has a link of 1 Mbit/s
// that takes 50 ms.
func TestNetworkImpairsEachClientAlone(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	n, err := New(ctx, 2, 1)
	rig.Check(t, err)
	rig.End(t, "network", n.Close)
	n.Clients[1].Down.Set(Settings{Rate: 1_000_000, Delay: 50 * time.Millisecond, Queue: 100 * time.Millisecond})
	var servers, clients []net.Conn
	for _, c := range n.Clients {
		var conn net.PacketConn
		rig.Check(t, c.Do(func() (err error) {
			conn, err = new(net.ListenConfig).ListenPacket(ctx, "udp4", c.IP+":9000")
			return err
		}))
		defer conn.Close()
		clients = append(clients, conn.(*net.UDPConn))
		server, err := n.Server.Dial(ctx, "udp4", c.IP+":9000")
		rig.Check(t, err)
		defer server.Close()
		servers = append(servers, server)
	}
	sent := time.Now()
	go func() {
		for i := range 400 { // 2 s
			time.Sleep(time.Until(sent.Add(time.Duration(i) * 5 * time.Millisecond)))
			for _, s := range servers {
				s.Write(make([]byte, 2500-100)) // in two fragments
			}
		}
		time.Sleep(500 * time.Millisecond) // until the queue has room
		for _, s := range servers {
			s.Write([]byte{1})
		}
	}()
	var got [2]int
	var first [2]time.Duration
	for i, c := range clients {
		c.SetReadDeadline(time.Now().Add(20 * time.Second))
		b := make([]byte, 3000)
		for {
			n, err := c.Read(b)
			if err != nil {
				t.Fatal(err)
			}
			if got[i] == 0 {
				first[i] = time.Since(sent)
			}
			if n == 1 {
				break
			}
			got[i] += n
		}
	}
	if got[0] != 400*2400 {
		t.Errorf("%d bytes of %d over a link that does nothing", got[0], 400*2400)
	}
	stats := n.Clients[1].Down.Stats()
	t.Logf("%+v", stats)
	if bits := stats.Bytes * 8; bits < 1_600_000 || bits > 2_600_000 {
		t.Errorf("%d bits in 2 s of 1 Mbit/s", bits)
	}
	if stats.Dropped == 0 {
		t.Error("nothing was dropped")
	}
	if first[1] < 50*time.Millisecond {
		t.Errorf("the first came after %s over a link of 50 ms", first[1])
	}
}

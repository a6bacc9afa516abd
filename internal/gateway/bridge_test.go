package gateway

import (
	"bufio"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A room's socket is there while the gateway runs, and no longer.
func TestRoomHasASocketForPrograms(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lab.sock")
	_, stop := runAs(t, t.TempDir(), "rooms: {lab: {socket: "+path+"}}\n")
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	var joined struct{ Type, RoomID string }
	line, err := bufio.NewReader(c).ReadBytes('\n')
	if err != nil || json.Unmarshal(line, &joined) != nil || joined.Type != "joined" || joined.RoomID != "lab" {
		t.Errorf("%s, %v", line, err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the socket stays: %v", err)
	}
}

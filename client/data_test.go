package client_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"gateway/client"
)

// Two clients and a program at the room's socket talk to each other, up to the limit.
func TestDataGoesBetweenClientsAndPrograms(t *testing.T) {
	ctx := patience(t)
	socket := filepath.Join(t.TempDir(), "lab.sock")
	address := start(t, open+"rooms: {lab: {socket: "+socket+"}}\n", nil)
	var clients []*client.Client
	var data []*client.Data
	var ids []string
	for _, name := range []string{"Anna", "Bob"} {
		c := dial(ctx, t, address, client.Options{Name: name})
		joined, err := c.Join(ctx, "lab")
		check(t, err)
		d, err := c.OpenData(ctx)
		check(t, err)
		clients, data, ids = append(clients, c), append(data, d), append(ids, joined.UserID)
	}
	if _, err := clients[0].OpenData(ctx); err == nil {
		t.Error("the channels were opened twice")
	}
	program, err := net.Dial("unix", socket)
	check(t, err)
	defer program.Close()
	lines := json.NewDecoder(program)
	line := func() (m struct {
		Type, UserID string
		Data         json.RawMessage
		Binary       []byte
		Lossy        bool
	}) {
		t.Helper()
		check(t, lines.Decode(&m))
		return m
	}
	robot := line().UserID

	check(t, data[0].Send(client.Message{Data: json.RawMessage(`{"speed": "<3>"}`)}))
	if m := line(); m.Type != "message" || m.UserID != ids[0] || string(m.Data) != `{"speed":"<3>"}` {
		t.Errorf("the program got %+v", m)
	}
	receives := func(d *client.Data, want client.Message) {
		t.Helper()
		got, err := d.Receive(ctx)
		check(t, err)
		if got.UserID != want.UserID || string(got.Data) != string(want.Data) || !bytes.Equal(got.Bytes, want.Bytes) || got.Lossy != want.Lossy || got.Target != "" {
			t.Errorf("%+v came", got)
		}
	}
	receives(data[1], client.Message{UserID: ids[0], Data: json.RawMessage(`{"speed":"<3>"}`)})
	whole := bytes.Repeat([]byte{7}, client.MaxData)
	check(t, data[1].Send(client.Message{Target: ids[0], Bytes: whole}))
	receives(data[0], client.Message{UserID: ids[1], Bytes: whole})
	full := json.RawMessage(`"` + strings.Repeat("<", client.MaxData-2) + `"`)
	check(t, data[0].Send(client.Message{Target: ids[1], Data: full}))
	receives(data[1], client.Message{UserID: ids[0], Data: full})
	check(t, data[1].Send(client.Message{Target: robot, Bytes: []byte{0, 255}, Lossy: true}))
	if m := line(); m.UserID != ids[1] || string(m.Binary) != "\x00\xff" || !m.Lossy {
		t.Errorf("the program got %+v", m)
	}
	_, err = program.Write([]byte(`{"type":"message","target":"` + ids[0] + `","data":1,"lossy":true}` + "\n"))
	check(t, err)
	receives(data[0], client.Message{UserID: robot, Data: json.RawMessage("1"), Lossy: true})

	events := clients[0].Events()
	check(t, data[0].Send(client.Message{Target: "nobody", Data: json.RawMessage("1")}))
	var refused client.Error
	check(t, json.Unmarshal(heard(ctx, t, events, "error").Raw, &refused))
	if refused.Code != "unknown-target" {
		t.Errorf("to nobody: %+v", refused)
	}
	for _, m := range []client.Message{
		{Bytes: make([]byte, client.MaxData+1)}, {Data: full, Bytes: []byte{1}}, {Target: strings.Repeat("x", 129)}, {Data: json.RawMessage("{")},
	} {
		if data[0].Send(m) == nil {
			t.Errorf("%.50s was sent", m.Data)
		}
	}
	check(t, clients[1].Close())
	if _, err := data[1].Receive(ctx); !errors.Is(err, client.ErrClosed) {
		var left *client.Left
		if !errors.As(err, &left) {
			t.Errorf("after the end: %v", err)
		}
	}
}

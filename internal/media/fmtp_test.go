package media

import "testing"

func TestRaiseFmtp(t *testing.T) {
	const before = "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id="
	baseline := SPS{Profile: 66, Constraints: 0xc0, Level: 31}
	for _, c := range []struct {
		fmtp string
		sps  SPS
		want string
	}{
		{before + "42e01f", baseline, before + "42e01f"},
		{before + "42E028", baseline, before + "42E028"}, // promised more: fine
		{before + "42e01e", baseline, before + "42e01f"},
		{before + "42e01f", SPS{Profile: 77, Level: 30}, before + "4d001e"},
		{before + "42e01f", SPS{Profile: 100, Constraints: 0x0c, Level: 40}, before + "640c28"},
		{before + "junk", baseline, before + "42e01f"},
		{"", baseline, before + "42e01f"},
		{"packetization-mode=1", SPS{Profile: 66, Constraints: 0xc0, Level: 9}, "packetization-mode=1;profile-level-id=42e009"},
	} {
		if got := RaiseFmtp(c.fmtp, c.sps); got != c.want {
			t.Errorf("RaiseFmtp(%q, %+v) = %q, want %q", c.fmtp, c.sps, got, c.want)
		}
	}
}

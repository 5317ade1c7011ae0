package main

import (
	"math"
	"testing"
)

func TestByteSize(t *testing.T) {
	tests := []struct {
		in        string
		want      int64
		out, text string
		bad       bool
	}{
		{in: "0", want: 0, out: "0", text: "0 B"},
		{in: "1000", want: 1000, out: "1000", text: "1000 B"},
		{in: "1024", want: 1024, out: "1K", text: "1.0 KiB"},
		{in: "500M", want: 500 << 20, out: "500M", text: "500.0 MiB"},
		{in: "500MiB", want: 500 << 20, out: "500M", text: "500.0 MiB"},
		{in: "5g", want: 5 << 30, out: "5G", text: "5.0 GiB"},
		{in: "1536M", want: 1536 << 20, out: "1536M", text: "1.5 GiB"},
		{in: "9223372036854775807", want: math.MaxInt64, out: "9223372036854775807", text: "8388608.0 TiB"},
		{in: "", bad: true},
		{in: "G", bad: true},
		{in: "-1", bad: true},
		{in: "1.5G", bad: true},
		{in: "5 G", bad: true},
		{in: "9999999999G", bad: true},
	}
	for _, test := range tests {
		t.Run(test.in, func(t *testing.T) {
			var b byteSize
			err := b.Set(test.in)
			if test.bad {
				if err == nil || err.Error() != "give a size such as 500M or 5G" {
					t.Errorf("Set: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if int64(b) != test.want || b.String() != test.out || b.text() != test.text {
				t.Errorf("got %d %q %q, want %d %q %q", b, b.String(), b.text(), test.want, test.out, test.text)
			}
		})
	}
}

package modsource

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var example = Source{Format: 1, Fuzz: 1, Units: []string{"fs/proc/cmdline.c"},
	Patches: []Patch{{Name: "a.patch", Text: []byte("--- a/f\n+++ b/f\n\xff")}}}

func TestRoundTrip(t *testing.T) {
	data, err := Encode(example)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Encode(example)
	if err != nil || !bytes.Equal(data, again) {
		t.Errorf("not the same bytes again: %v", err)
	}
	got, err := Decode(data)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(example, got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

func TestRefusals(t *testing.T) {
	data, err := Encode(example)
	if err != nil {
		t.Fatal(err)
	}
	none, err := Encode(Source{})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		data []byte
		want string
	}{
		{"cut", data[:len(data)-3], "section .klpc.source: "},
		{"other bytes", []byte("hello"), "section .klpc.source: "},
		{"no patches", none, "no patches"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := Decode(tt.data); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v lacks %q", err, tt.want)
			}
		})
	}
}
